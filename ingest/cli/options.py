"""Options that several commands share."""

import os
from typing import Annotated

import typer

from ingest.errors import ConfigurationError
from ingest.settings import Settings
from ingest.settings.sources import load_settings

# The exit code for what cannot be reached right now.
UNAVAILABLE = 3

Config = Annotated[
    str | None, typer.Option("--config", help="The settings file; else INGEST_CONFIG, else ./ingest.toml.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, for scripts.")]


def complete_account(incomplete: str) -> list[str]:
    """Name the accounts of the settings that begin so, for the shell; none where the settings cannot be read."""
    try:
        return [name for name in load_settings().accounts if name.startswith(incomplete)]
    except ConfigurationError:
        return []


def settings_of(config: str | None) -> Settings:
    """Reads the settings, and lets child processes and workers find the same file. Raises ConfigurationError."""
    if config:
        os.environ["INGEST_CONFIG"] = config
    return load_settings()
