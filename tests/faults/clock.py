"""Clocks that jump for some processes only, where libfaketime is installed."""

import os
from collections.abc import Mapping
from pathlib import Path

# Debian's package `libfaketime` is in one of these; FAKETIME_LIBRARY names a library that is somewhere else.
_FOLDERS = ("/usr/lib", "/usr/local/lib")


def find_library() -> Path | None:
    """Return the path of libfaketime; None where it is not installed."""
    if library := os.environ.get("FAKETIME_LIBRARY"):
        return Path(library)
    return next((path for folder in _FOLDERS for path in Path(folder).rglob("libfaketimeMT.so.1")), None)


class Clock:
    """The wall clock of the processes that have its `environ`.

    Elapsed time is measured by another clock, which stays right.

    libfaketime does not know glibc's `cnd_timedwait`, with which librdkafka waits until a time by the wall
    clock. While the clock is ahead, such a wait ends only when something happens: as though the clock had
    been set right just after the wait began.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set_right()

    def environ(self, library: Path) -> Mapping[str, str]:
        """Return the environment variables that a process is to be started with."""
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds: int) -> None:
        """Set the clock ahead by these seconds, or back where they are negative.

        Processes see it within a second.
        """
        replace(self._file, f"{seconds:+d}")

    def set_right(self) -> None:
        """Set the clock to the machine's time."""
        self.jump(0)


def replace(file: Path, text: str) -> None:
    """Replace the file's text atomically, so that nobody reads half of it."""
    unfinished = file.with_suffix(".new")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.rename(file)


def withdraw(file: Path) -> None:
    """Delete the file where it is still there."""
    file.unlink(missing_ok=True)
