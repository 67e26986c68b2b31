"""`init` and `check`: from nothing to settings that work, with errors a person can act on."""

import json
import os
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.markup import escape

from ingest.address import Address, parse_web_address
from ingest.cli.options import AsJson, Config, settings_of
from ingest.cli.webhooks_shown import arrived, has_api
from ingest.errors import ConfigurationError, IngestError
from ingest.rest import Patience
from ingest.settings import Settings
from ingest.settings.sources import DEFAULT_CONFIG, secrets_path
from ingest.vendors import AnyVendor

_PRIVATE = 0o600
_SCHEMA_FILE = "ingest.schema.json"
_REST_SECONDS = 10.0


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    app.command()(init)
    app.command()(check)


def init(
    path: Annotated[Path, typer.Argument(help="Where to write the settings.")] = Path(DEFAULT_CONFIG),
    public_url: Annotated[
        str, typer.Option(help="The receiver's address as the vendors see it; it must lead to this machine.")
    ] = "https://hooks.example.com",
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of the settings file and write nothing.")] = False,
) -> None:
    """Write a settings file to edit, with an example account of each vendor, and a private file for secrets.

    A JSON schema beside them lets editors complete and check the settings. In a git repository, `.gitignore` gets the secrets and `data/`.

    Examples: [bold]ingest init --public-url https://hooks.mycompany.com[/bold]   [bold]ingest init --schema > ingest.schema.json[/bold]
    """
    if schema:
        print(_schema(), end="")
        return
    try:
        public_url = parse_web_address(public_url)
    except ValueError as error:
        raise ConfigurationError(f"--public-url {error}") from None
    private, described = secrets_path(path), path.with_name(_SCHEMA_FILE)
    _refuse_existing([path, private, *([] if _is_schema(described) else [described])], force=force)
    try:
        path.write_text(_CONFIG.replace("PUBLIC_URL", public_url).replace("SCHEMA_FILE", _SCHEMA_FILE), encoding="utf-8")
        described.write_text(_schema(), encoding="utf-8")
        ignored = _ignore(path.absolute().parent, [f"/{private.name}*", "/data/"])
        _write_private(private, _SECRETS.replace("GENERATED", secrets.token_urlsafe(32)))
    except OSError as error:
        raise ConfigurationError(f"{error.filename} cannot be written: {error.strerror}") from None
    option = "" if path == Path(DEFAULT_CONFIG) else f" --config {path}"
    also = " and .gitignore" if ignored else ""
    Console().print(
        f"wrote {path}, {private} (only you can read it), {described}{also}. Edit the first two, then run: ingest check{option}",
        highlight=False,
        soft_wrap=True,
    )


def _refuse_existing(files: list[Path], *, force: bool) -> None:
    existing = [str(file) for file in files if file.exists()]
    if existing and not force:
        raise ConfigurationError(f"{' and '.join(existing)} exist already: --force replaces them, or name another file")


def _schema() -> str:
    from ingest.settings.schema import settings_schema

    return json.dumps(settings_schema(), indent=2, ensure_ascii=False) + "\n"


def _is_schema(file: Path) -> bool:
    """Whether an earlier `init` wrote it: then it may be replaced."""
    from ingest.settings.schema import TITLE

    try:
        return TITLE in file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _ignore(folder: Path, patterns: list[str]) -> bool:
    """Adds to the folder's `.gitignore` what it lacks; whether it did. Outside of a git repository there is nothing to do."""
    if not any((place / ".git").exists() for place in (folder, *folder.parents)):
        return False
    file = folder / ".gitignore"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    missing = [pattern for pattern in patterns if pattern not in text.splitlines()]
    if missing:
        start = "" if not text or text.endswith("\n") else "\n"
        file.write_text(text + start + "\n".join(["# secrets and data of bookings-ingest", *missing, ""]), encoding="utf-8")
    return bool(missing)


def _write_private(path: Path, text: str) -> None:
    """A new file: one that was there may be readable by others, or be open."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "w", encoding="utf-8") as file:
        file.write(text)


def check(as_json: AsJson = False, config: Config = None) -> None:
    """Try everything that is needed to run, and say what to give each vendor.

    Example: [bold]ingest check[/bold]   (exit code 1 when something is not right)
    """
    settings = settings_of(config)
    by_hand = [(name, vendor) for name, vendor in settings.vendors().items() if not has_api(vendor)]
    findings = [
        _finding("accounts", lambda: _accounts(settings)),
        _finding("public url", lambda: _public_url(settings)),
        _finding("listeners", lambda: _listeners(settings)),
        _finding("log", lambda: _log(settings)),
        _finding("spool", lambda: _spool(settings)),
        _finding("warehouse", lambda: _warehouse(settings)),
        *(_rest(settings, vendor) for vendor in settings.vendors().values()),
        *(_finding(f"webhooks {name}", partial(arrived, settings, vendor)) for (_, name), vendor in by_hand),
    ]
    urls = {name: _webhook_urls(vendor) for (_, name), vendor in settings.vendors().items()}
    if as_json:
        print(json.dumps({"checks": findings, "webhook_urls": urls}))
    else:
        _show(findings, urls)
    if not all(finding["ok"] for finding in findings):
        raise typer.Exit(1)


def _finding(name: str, look: Callable[[], str]) -> dict[str, object]:
    try:
        return {"check": name, "ok": True, "skipped": False, "detail": look()}
    except IngestError as error:
        return {"check": name, "ok": False, "skipped": False, "detail": str(error)}


def _accounts(settings: Settings) -> str:
    from receivers.app import ready_vendors

    names = [f"{vendor}/{name}" for vendor, name in ready_vendors(settings)]
    return f"{', '.join(names)}: every one has a webhook secret"


def _public_url(settings: Settings) -> str:
    if urlsplit(settings.public_url).hostname in {"127.0.0.1", "localhost", "::1"}:
        return f"{settings.public_url}: fine for a try on one machine; vendors cannot reach it"
    if not settings.public_url.startswith("https://"):
        raise ConfigurationError(f"{settings.public_url} is not https: vendors deliver to https only")
    return f"{settings.public_url}: that it leads to this machine only a delivery can show"


def _listeners(settings: Settings) -> str:
    from ingest.admin import check_admin
    from ingest.listening import is_taken

    ports = [settings.receiver.port, settings.receiver.admin_port, settings.consumer.admin_port, settings.reconcile.admin_port]
    if len(set(ports) - {0}) < len([port for port in ports if port]):
        raise ConfigurationError("receiver.port, receiver.admin_port, consumer.admin_port and reconcile.admin_port must differ")
    check_admin(settings.receiver, "receiver")
    check_admin(settings.consumer, "consumer")
    check_admin(settings.reconcile, "reconcile")
    hosts = [settings.receiver.host, settings.receiver.admin_host, settings.consumer.admin_host, settings.reconcile.admin_host]
    taken = [str(port) for host, port in zip(hosts, ports, strict=True) if port and is_taken(host, port)]
    in_use = f"; in use now: {', '.join(taken)}, which is right while `ingest up` runs" if taken else ""
    return f"webhooks on {Address(settings.receiver.host, ports[0])}, admin on {', '.join(map(str, ports[1:]))}{in_use}"


def _log(settings: Settings) -> str:
    from ingest.opening import probe

    probe(settings)
    return f"{settings.log} can be reached"


def _spool(settings: Settings) -> str:
    from receivers.spool.opening import try_out

    return try_out(settings)


def _warehouse(settings: Settings) -> str:
    from consumers.warehouse import try_out

    try_out(settings)
    return f"{settings.warehouse.destination} can be written to, dataset {settings.warehouse.dataset}"


def _rest(settings: Settings, vendor: AnyVendor) -> dict[str, object]:
    """An account may do without; then what its vendor fails to deliver is never found."""
    name = f"REST {vendor.account.name}"
    if vendor.account.can_read():
        return _finding(name, partial(_ping, settings, vendor))
    needed = vendor.account.rest_needs()
    left_out = (
        f"not configured: reconcile and sync leave this account out, and missed webhooks are not found; to change that, set its {needed}"
    )
    return {"check": name, "ok": True, "skipped": True, "detail": left_out}


def _ping(settings: Settings, vendor: AnyVendor) -> str:
    from ingest.vendors.rest import load_rest

    load_rest(vendor.name)(vendor, Path(settings.reconcile.state_dir), Patience(failing=_REST_SECONDS, busy=_REST_SECONDS)).ping()
    only = "" if vendor.account.can_reconcile() else ", for sync only: reconcile leaves this account out, and missed webhooks are not found"
    return f"{vendor.name} takes the credentials{only}"


def _webhook_urls(vendor: AnyVendor) -> list[str]:
    return [vendor.webhook_url + (f"?{query}" if query else "") for query in vendor.webhook_queries()]


def _show(findings: list[dict[str, object]], urls: dict[str, list[str]]) -> None:
    console = Console(highlight=False)
    for finding in findings:
        console.print(f"{_mark(finding)} [bold]{finding['check']}[/bold]: {escape(str(finding['detail']))}")
    console.print("\nGive each vendor its webhook URL (`ingest webhooks apply` does, where there is an API):")
    for name, lines in urls.items():
        for line in lines:
            console.print(f"  {name}: {line}", soft_wrap=True)


def _mark(finding: dict[str, object]) -> str:
    if finding["skipped"]:
        return "[yellow]skip[/yellow]"
    return "[green]ok[/green]  " if finding["ok"] else "[red]FAIL[/red]"


_CONFIG = """\
#:schema ./SCHEMA_FILE
# Settings of `ingest`. Each can also be a variable: INGEST_RECEIVER__PORT=9000 sets receiver.port.
# Relative paths belong to the folder of this file. Secrets do not belong here, but in the private file beside this one.

public_url = "PUBLIC_URL"        # the receiver's address as vendors see it; Bookeo signs it
log        = "sqlite:///data/log.db"             # or "kafka://host:9092,host2:9092"

[receiver]
port = 8080                                      # public: /webhooks/* and /healthz
admin_port = 8081                                # loopback: /readyz and /metrics

[consumer]
admin_port = 8082                                # the consumer's /readyz and /metrics

[warehouse]                                      # any dlt destination
destination = "duckdb"
credentials = "data/warehouse.duckdb"            # for a database with a password: INGEST_WAREHOUSE__CREDENTIALS
dataset = "ingest"

# One table per account; its name is part of its webhook URL: /webhooks/calendly/sales. Delete what you do not use.
[accounts.sales]
vendor = "calendly"

# [accounts.support]
# vendor = "oncehub"

# [accounts.salon]
# vendor = "appointedd"
# webhook_header = "X-Webhook-Token"             # or webhook_user = "…" for basic authentication

# [accounts.tours]
# vendor = "bookeo"
"""

_SECRETS = """\
# Secrets, in the same shape as the settings. Keep this file readable by you alone (0600).
# Several secrets of one account may be live at once, during a rotation: ["new", "old"].

[accounts.sales]
webhook_secrets = ["GENERATED"]   # the signing_key you give Calendly when you create the subscription
# api_token = "a personal access token"   # this and the keys below: to find what webhooks missed, and to sync

# [accounts.support]
# webhook_secrets = ["the secret OnceHub shows when the webhook is created"]
# api_key = "an API key"

# [accounts.salon]
# webhook_secrets = ["the value of the header you set in Appointedd, long and random"]
# api_key = "the organisation's API key"

# [accounts.tours]
# secret_key = "your Bookeo application's secret key"
# api_key = "the account's API key"
"""
