"""`init`: write settings that work as they are."""

import json
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from ingest.address import is_loopback, parse_web_address
from ingest.cli.output import print_line, print_text
from ingest.errors import ConfigurationError
from ingest.settings.sources import DEFAULT_CONFIG, secrets_path
from ingest.vendors import Example, ranked_account_classes

_PRIVATE_MODE = 0o600
_SCHEMA_FILE = "ingest.schema.json"


def init(
    path: Annotated[Path, typer.Argument(help="Where to write the settings.")] = Path(DEFAULT_CONFIG),
    public_url: Annotated[
        str, typer.Option(help="The receiver's address for the vendors. It must lead to this machine.")
    ] = "https://hooks.example.com",
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of the settings file and write nothing.")
    ] = False,
) -> None:
    """Write a settings file to edit, with an example account of each vendor, and a private file for secrets.

    A JSON schema beside them lets editors complete and check the settings. In a git repository, `.gitignore`
    gets the secrets and `data/`.

    Examples:
        ingest init --public-url https://hooks.mycompany.com
        ingest init --schema > ingest.schema.json
    """
    from ingest.settings.introspection import TITLE, settings_schema

    schema_text = json.dumps(settings_schema(), indent=2, ensure_ascii=False) + "\n"
    if schema:
        print_text(schema_text)
        return
    public_url = _vendors_address(public_url)
    secrets_file, schema_file = secrets_path(path), path.with_name(_SCHEMA_FILE)
    existing = [str(file) for file in (path, secrets_file, schema_file) if file.exists()]
    with suppress(OSError, UnicodeDecodeError):
        if TITLE in schema_file.read_text(encoding="utf-8"):  # an earlier `init` wrote it
            existing.remove(str(schema_file))
    if existing and not force:
        raise ConfigurationError(
            f"{' and '.join(existing)} exist already: --force replaces them, or name another file"
        )
    config_text, secrets_text = _file_texts(public_url)
    try:
        path.write_text(config_text, encoding="utf-8")
        schema_file.write_text(schema_text, encoding="utf-8")
        ignored = _ignore(path.absolute().parent, [f"/{secrets_file.name}*", "/data/"])
        secrets_file.unlink(missing_ok=True)  # it may be readable by others, or open
        descriptor = os.open(secrets_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_MODE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secrets_text)
    except OSError as error:
        raise ConfigurationError(f"{error.filename} cannot be written: {error.strerror}") from None
    option = "" if path == Path(DEFAULT_CONFIG) else f" --config {path}"
    also = " and .gitignore" if ignored else ""
    print_line(
        f"wrote {path}, {secrets_file} (only you can read it), {schema_file}{also}."
        f" Edit the first two, then run: ingest check{option}"
    )


def _vendors_address(url: str) -> str:
    """Return the address in its usual form. Raises ConfigurationError where vendors cannot deliver to it."""
    try:
        url = parse_web_address(url)
    except ValueError as error:
        raise ConfigurationError(f"--public-url {error}") from None
    parts = urlsplit(url)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ConfigurationError(
            f"--public-url {url}: vendors deliver safely to an https address only; a reverse proxy"
            " takes TLS (deploy/proxy has examples)"
        )
    return url


def _file_texts(public_url: str) -> tuple[str, str]:
    """Return the settings file and the file of secrets, with an example account of each vendor."""
    examples = [
        (account_class.vendor, account_class.example or Example(account_class.vendor))
        for account_class in ranked_account_classes()
    ]
    vendor, first = examples[0]
    config = _CONFIG.replace("PUBLIC_URL", public_url).replace("SCHEMA_FILE", _SCHEMA_FILE)
    config = config.replace("WEBHOOK_PATH", f"/webhooks/{vendor}/{first.account}")
    config += _account_tables(
        [(example.account, (f'vendor = "{vendor}"', *example.settings)) for vendor, example in examples]
    )
    tables = _account_tables([(example.account, example.secrets) for _, example in examples])
    return config, _SECRETS + tables.replace("GENERATED", secrets.token_urlsafe(32))


def _account_tables(tables: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a TOML table for each account. All but the first one are comments."""
    (account, lines), *others = tables
    blocks = [
        [f"[accounts.{account}]", *lines],
        *([f"# {line}" for line in (f"[accounts.{account}]", *lines)] for account, lines in others),
    ]
    return "\n".join("\n".join([*block, ""]) for block in blocks)


def _ignore(folder: Path, patterns: list[str]) -> bool:
    """Add to the folder's `.gitignore` what it lacks.

    Return whether it did. Outside of a git repository there is nothing to do.
    """
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return False
    file = folder / ".gitignore"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    missing = [pattern for pattern in patterns if pattern not in text.splitlines()]
    if missing:
        start = "" if not text or text.endswith("\n") else "\n"
        file.write_text(
            text + start + "\n".join(["# secrets and data of bookings-ingest", *missing, ""]),
            encoding="utf-8",
        )
    return bool(missing)


_CONFIG = """\
#:schema ./SCHEMA_FILE
# Settings of `ingest`. Each can also be a variable: INGEST_RECEIVER__PORT=9000 sets receiver.port.
# Relative paths belong to the folder of this file. Secrets do not belong here, but in \
the private file beside this one.

public_url = "PUBLIC_URL"        # the receiver's address for the vendors; some sign it
log        = "sqlite:///data/log.db"             # or "kafka://host:9092,host2:9092"

[receiver]
port = 8080                                      # public: /webhooks/* and /healthz
admin_port = 8081                                # loopback: /readyz and /metrics

[consumer]
admin_port = 8082                                # the consumer's /readyz and /metrics

[feed]                                           # bookings as they change: ingest tail, /api/changes
enabled = true

[warehouse]                                      # which ones there are: docs/destinations.md
destination = "duckdb"
credentials = "data/warehouse.duckdb"            # for a database with a password: \
INGEST_WAREHOUSE__CREDENTIALS
dataset = "ingest"

# One table per account; its name is part of its webhook URL: WEBHOOK_PATH. Delete what you do not use.
"""

_SECRETS = """\
# Secrets, in the same shape as the settings. Keep this file readable by you alone (0600).
# Several secrets of one account may be live at once, during a rotation: ["new", "old"].

"""
