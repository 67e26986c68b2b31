"""The file in which reconciliation records how far this machine's clock is ahead of the vendors'.

Receivers on this machine read it.

It holds the vendors' time together with that of a monotonic clock, so that it stays right when the wall clock
is set or jumps.
"""

import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import orjson

from ingest.errors import ConfigurationError
from ingest.private_file import replace_private

_FILE = "clock.json"
_VALID_SECONDS = 6 * 3600.0  # later the two clocks may have drifted apart
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def write_clock_ahead(folder: Path, ahead: timedelta) -> None:
    """Record how far this machine's clock is ahead of a vendor's.

    Nothing depends on the file, so it is no error when it cannot be written.
    """
    reading = {"boot": _boot(), "monotonic": _monotonic(), "vendors": time.time() - ahead.total_seconds()}
    if not reading["boot"]:
        return
    with suppress(OSError, ConfigurationError):
        replace_private(folder / _FILE, orjson.dumps(reading))


def read_clock_ahead(folder: Path) -> timedelta | None:
    """Return how far this machine's clock is ahead now.

    The result is None when that was not measured since the machine started, or for hours.
    """
    with suppress(OSError, ValueError, TypeError, KeyError, OverflowError):
        reading = orjson.loads((folder / _FILE).read_bytes())
        passed = _monotonic() - reading["monotonic"]
        if reading["boot"] == _boot() and 0 <= passed < _VALID_SECONDS:
            return timedelta(seconds=time.time() - reading["vendors"] - passed)
    return None


def _monotonic() -> float:
    """Return the seconds of a clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _boot() -> str:
    """Return an id of this start of the machine; "" when the system has none."""
    with suppress(OSError):
        return _BOOT.read_text(encoding="ascii").strip()
    return ""
