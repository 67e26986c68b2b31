"""Clocks that jump for some processes only, where libfaketime is installed."""

import os
from collections.abc import Mapping
from pathlib import Path

# Debian's package `libfaketime`; FAKETIME_LIBRARY names one that is somewhere else.
_PLACES = ("/usr/lib", "/usr/local/lib")


def find_library() -> Path | None:
    """None where there is no libfaketime."""
    if named := os.environ.get("FAKETIME_LIBRARY"):
        return Path(named)
    return next((found for place in _PLACES for found in Path(place).rglob("libfaketimeMT.so.1")), None)


class Clock:
    """The wall clock of the processes that have its `environ`; time that passes is measured by another, which stays right."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set_right()

    def environ(self, library: Path) -> Mapping[str, str]:
        """What a process is started with."""
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds: int) -> None:
        """Ahead, or back where negative; seen within a second."""
        replace(self._file, f"{seconds:+d}")

    def set_right(self) -> None:
        """As the machine's."""
        self.jump(0)


def replace(file: Path, text: str) -> None:
    """Nobody reads half of it."""
    unfinished = file.with_suffix(".new")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.rename(file)


def withdraw(file: Path) -> None:
    """Where it is still there."""
    file.unlink(missing_ok=True)
