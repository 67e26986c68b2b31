"""`init`: from nothing to settings that work."""

import os
import re
import secrets
from pathlib import Path
from typing import Annotated

import typer

from ingest.cli.output import print_line
from ingest.errors import ConfigurationError
from ingest.settings.sources import DEFAULT_CONFIG, secrets_path

_PRIVATE = 0o600
_URL = re.compile(r"https?://[^/?#\s]+(/[^?#\s]*)?")


def register(app: typer.Typer) -> None:
    """Adds this module's command."""
    app.command()(init)


def init(
    path: Annotated[Path, typer.Argument(help="Where to write the settings.")] = Path(DEFAULT_CONFIG),
    public_url: Annotated[str, typer.Option(help="What vendors will be given; must reach this machine.")] = "https://hooks.example.com",
    force: Annotated[bool, typer.Option(help="Replace files that are there.")] = False,
) -> None:
    """Write a settings file to edit, with an example account of each vendor, and a private file for secrets.

    Example: [bold]ingest init --public-url https://hooks.mycompany.com[/bold]
    """
    if not _URL.fullmatch(public_url):
        raise ConfigurationError(f"--public-url {public_url} is not an address; write for example https://hooks.example.com")
    private = secrets_path(path)
    taken = [str(file) for file in (path, private) if file.exists()]
    if taken and not force:
        raise ConfigurationError(f"{' and '.join(taken)} exist already: --force replaces them, or name another file")
    try:
        path.write_text(_CONFIG.replace("PUBLIC_URL", public_url), encoding="utf-8")
        _write_private(private, _SECRETS.replace("GENERATED", secrets.token_urlsafe(32)))
    except OSError as error:
        raise ConfigurationError(f"{error.filename} cannot be written: {error.strerror}") from None
    named = "" if path == Path(DEFAULT_CONFIG) else f" --config {path}"
    print_line(f"wrote {path} and {private} (only you can read it). Edit both, then run: ingest check{named}")


def _write_private(path: Path, text: str) -> None:
    """A new file: one that was there may be readable by others, or be open."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "w", encoding="utf-8") as file:
        file.write(text)


_CONFIG = """\
# Settings of `ingest`. Every value can also come from the environment: INGEST_RECEIVER__PORT=9000 and so on.
# Secrets are not kept here, but in the environment or in the file beside this one that only you can read.

public_url = "PUBLIC_URL"        # what vendors were given; Bookeo signs it
log        = "sqlite:///data/log.db"             # or "kafka://host:9092,host2:9092"

[receiver]
port = 8080                                      # public: /webhooks/* and /healthz
admin_port = 8081                                # loopback: /readyz and /metrics

[consumer]
admin_port = 8082                                # the same, of the consumer

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
