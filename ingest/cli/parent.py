"""A child process of `up` starts with the settings that its parent hands to it, and ends when its parent does."""

import os
import signal
import sys
import threading
from typing import Annotated

import typer

from ingest.cli.options import settings_of
from ingest.errors import ConfigurationError
from ingest.private_file import remove_left_copies
from ingest.settings import Settings
from ingest.settings.sources import Snapshot, current_secrets_path

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


def follow_parent(wanted: bool) -> None:
    """A child outlives its parent's crash by no more than a clean stop: the parent holds our standard input open."""

    def wait() -> None:
        os.read(
            sys.stdin.fileno(), 1
        )  # returns at end of file; unbuffered, so that nothing is locked at exit
        os.kill(os.getpid(), signal.SIGTERM)

    if wanted:
        threading.Thread(target=wait, name="parent", daemon=True).start()


def handed_settings(config: str | None, wanted: bool) -> Settings:
    """Return the settings that the parent writes to our standard input, or those of the files when it writes none. Raises ConfigurationError.

    They hold secrets, so they come through a pipe that nobody else can read, and not in arguments or the environment. What a killed process
    left of files with secrets is removed.
    """
    settings = _read_handed() if wanted else settings_of(config)
    remove_left_copies(current_secrets_path().resolve())
    return settings


def _read_handed() -> Settings:
    line = bytearray()
    while not line.endswith(b"\n") and (part := os.read(sys.stdin.fileno(), _READ_BYTES)):
        line += part
    try:
        return Snapshot.decode(bytes(line)).settings()
    except (ValueError, KeyError, TypeError):  # another version's, or cut off with the parent's end
        raise ConfigurationError("the settings that the parent process handed over cannot be read") from None
