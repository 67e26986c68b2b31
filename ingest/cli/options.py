"""Options that several commands share, and how their values and the settings are read."""

import os
import signal
import sys
import threading
from typing import Annotated

import typer

from ingest.errors import ConfigurationError
from ingest.files import remove_left_copies
from ingest.settings import Settings
from ingest.settings.sources import Snapshot, current_secrets_path, load_settings

Config = Annotated[
    str | None, typer.Option("--config", help="Settings file; by default INGEST_CONFIG, or ./ingest.toml.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, for scripts.")]
WithParent = Annotated[
    bool, typer.Option("--with-parent", hidden=True, help="Stop when standard input closes.")
]
WithSettings = Annotated[
    bool,
    typer.Option(
        "--with-settings", hidden=True, help="Take the settings from the first line of standard input."
    ),
]

_READ_BYTES = 1 << 16


def complete_account(incomplete: str) -> list[str]:
    """Complete an account's name for the shell. Returns none where the settings cannot be read."""
    try:
        return [name for name in load_settings().accounts if name.startswith(incomplete)]
    except ConfigurationError:
        return []


def read_settings(config: str | None) -> Settings:
    """Read the settings, and let child processes and workers find the same file.

    Raises ConfigurationError.
    """
    if config:
        os.environ["INGEST_CONFIG"] = config
    return load_settings()


def receive_settings(config: str | None, with_settings: bool) -> Settings:
    """Return the settings that the parent writes to standard input, or those of the files.

    Raises ConfigurationError.

    They hold secrets, so they come through a pipe that nobody else can read, and not in arguments or the
    environment. Files with secrets that a killed process left behind are removed.
    """
    if with_settings:
        line = bytearray()
        while not line.endswith(b"\n") and (part := os.read(sys.stdin.fileno(), _READ_BYTES)):
            line += part
        try:
            settings = Snapshot.decode(bytes(line)).settings()
        except (ValueError, KeyError, TypeError):  # another version's, or cut off by the parent's end
            raise ConfigurationError(
                "the settings that the parent process handed over cannot be read"
            ) from None
    else:
        settings = read_settings(config)
    remove_left_copies(current_secrets_path().resolve())
    return settings


def stop_with_parent(with_parent: bool) -> None:
    """Stop this process when its parent ends, also by a crash: the parent holds our standard input open."""

    def wait_for_end() -> None:
        # Returns at the end of the file. Unbuffered, so that no lock is held when Python exits.
        os.read(sys.stdin.fileno(), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    if with_parent:
        threading.Thread(target=wait_for_end, name="parent", daemon=True).start()
