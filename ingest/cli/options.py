"""Options that several commands share, and how their values and the settings are read."""

import os
import re
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from ingest.errors import ConfigurationError
from ingest.files import remove_left_copies
from ingest.settings import Settings
from ingest.settings.sources import Snapshot, current_secrets_path, load_settings
from ingest.times import Duration, utc

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
_DURATION = TypeAdapter(Duration)
_AGO = re.compile(r"[0-9.]+(ms|s|m|h|d)?")
_DAYS = re.compile(r"[0-9]+d")
_YEAR = re.compile(r"\d{4,}")


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


def parse_span(
    since: str, until: str, now: datetime, default_since: datetime | None = None
) -> tuple[datetime | None, datetime | None]:
    """Parse --since and --until; an empty text is None.

    `default_since` is where the span begins without --since; it is checked, not returned. Raises
    ConfigurationError.
    """
    begin = parse_instant("--since", since, now) if since else None
    end = parse_instant("--until", until, now) if until else None
    first = begin or default_since
    if first and first >= (end or now):
        raise ConfigurationError("--since must be before --until, and before now")
    return begin, end


def parse_instant(option: str, text: str, now: datetime) -> datetime:
    """Parse a date (its first moment in UTC), an instant or how long ago.

    Raises ConfigurationError, which names the option.
    """
    try:
        if _AGO.fullmatch(text) and not _YEAR.fullmatch(text):
            duration: timedelta = _DURATION.validate_python(text)
            instant = now - duration
            # Whole days begin at midnight, so that a run that is started again covers the same span.
            is_days = _DAYS.fullmatch(text)
            return instant.replace(hour=0, minute=0, second=0, microsecond=0) if is_days else instant
        instant = datetime.fromisoformat(text)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else utc(instant)
    except (ValueError, ValidationError, OverflowError):
        raise ConfigurationError(
            f"{option} {text}: write a date (2026-11-01), an "
            "instant (2026-11-01T09:00Z) or how long ago (30d)"
        ) from None
