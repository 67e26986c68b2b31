"""The file in which reconciliation keeps how far this machine's clock is ahead of vendors', for the receivers of this machine.

It has the vendors' time beside that of a clock that nobody sets, so that it holds although the wall clock is set, or jumps, meanwhile.
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
    """Keep how far this machine's clock is ahead of a vendor's. Nothing depends on the file, so one that cannot be written is no error."""
    kept = {"boot": _boot(), "monotonic": _monotonic(), "vendors": time.time() - ahead.total_seconds()}
    if not kept["boot"]:
        return
    with suppress(OSError, ConfigurationError):
        replace_private(folder / _FILE, orjson.dumps(kept))


def read_clock_ahead(folder: Path) -> timedelta | None:
    """Return how far this machine's clock is ahead now; None where that was not measured since the machine started, or for hours."""
    with suppress(OSError, ValueError, TypeError, KeyError, OverflowError):
        kept = orjson.loads((folder / _FILE).read_bytes())
        passed = _monotonic() - kept["monotonic"]
        if kept["boot"] == _boot() and 0 <= passed < _VALID_SECONDS:
            return timedelta(seconds=time.time() - kept["vendors"] - passed)
    return None


def _monotonic() -> float:
    """Return seconds by a clock of the whole machine, which nobody sets and which goes on while it sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _boot() -> str:
    """Return what tells one start of this machine from another; "" where the system does not say."""
    with suppress(OSError):
        return _BOOT.read_text(encoding="ascii").strip()
    return ""
