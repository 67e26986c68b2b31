"""Plausibility of times, and the difference between this machine's clock and others.

Reconciliation records in a file how far this machine's clock is ahead of the vendors', and receivers on this
machine read it. The file holds the vendors' time together with that of a monotonic clock, so that it stays
right when the wall clock is set or jumps.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import orjson

from ingest.errors import ConfigurationError, PayloadError
from ingest.files import replace_private
from ingest.times import format_instant, parse_instant

# How far two machines' clocks may differ without one of them being called wrong.
CLOCK_SKEW = timedelta(minutes=5)
# The most by which a machine's clock may be behind, if it was not compared with a vendor's. Beyond that, the
# vendor's time counts as wrong.
UNCHECKED_SKEW = timedelta(days=400)
# How far reconciliation looks back when the time up to which everything was compared is in the future: nobody
# knows how far that clock was ahead.
LOOKBACK_IN_DOUBT = timedelta(days=31)

CLOCK_REMEDY = "set this machine's clock, and keep it with NTP, for example timedatectl set-ntp true"

# A smaller difference from the `Date` of an HTTP response proves nothing: that is cut to the second, and
# takes time to arrive.
_LEAST_DIFFERENCE = timedelta(seconds=5)
# The coarsest unit to which vendors cut times.
_COARSEST = timedelta(minutes=1)
_HALF_SECOND = timedelta(seconds=0.5)

_LAST = datetime.max.replace(tzinfo=UTC)
_INSTANT_LENGTH = len(format_instant(_LAST))

_CLOCK_FILE = "clock.json"
_VALID_SECONDS = 6 * 3600.0  # later the two clocks may have drifted apart
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def is_future(moment: datetime, now: datetime) -> bool:
    """Return whether a time is further ahead of `now` than clocks may differ."""
    return moment > add_span(now, CLOCK_SKEW)


def is_recent(moment: datetime, now: datetime, span: timedelta) -> bool:
    """Return whether a time is at most `span` before `now`; one in the future is not recent either."""
    return now - moment <= span and not is_future(moment, now)


def add_span(moment: datetime, span: timedelta) -> datetime:
    """Return the time that is `span` later, or the last one that a datetime can be."""
    return moment + span if _LAST - moment > span else _LAST


def is_ahead(version: str, limit: datetime) -> bool:
    """Return whether a version, or either part of a row's `state/event`, has a time after `limit`."""
    return max([part[:_INSTANT_LENGTH] for part in version.split("/")]) > format_instant(limit)


def is_long_before(version: str, moment: datetime) -> bool:
    """Return whether a version's time is more than a minute, to which vendors may cut, before `moment`."""
    try:
        return version[:_INSTANT_LENGTH] < format_instant(moment - _COARSEST)
    except OverflowError:
        return False


def version_instant(version: str) -> datetime | None:
    """Return the time in a version, or in the vendor's part of a row's; None where it has none."""
    try:
        return parse_instant(version[:_INSTANT_LENGTH])
    except PayloadError:
        return None


def with_instant(version: str, moment: datetime) -> str:
    """Return a version with another time; what the vendor's module has put behind the time is kept."""
    return f"{format_instant(moment)}{version[_INSTANT_LENGTH:]}"


def server_time(headers: Mapping[str, str]) -> datetime | None:
    """Return the `Date` of an HTTP response; None when it has none, or one that cannot be read."""
    try:
        return parsedate_to_datetime(headers["date"]).astimezone(UTC)
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def clock_ahead(headers: Mapping[str, str], sent_at: datetime, answered_at: datetime) -> timedelta | None:
    """Return how far this machine's clock is ahead of a server's, by headers of an HTTP response.

    The result is negative when the clock is behind, zero when the difference is too small for a response that
    took so long, and None when the headers do not tell.
    """
    made_at = server_time(headers)
    if made_at is None:
        return None
    try:
        ahead = (
            sent_at
            + (answered_at - sent_at) / 2
            - made_at
            - timedelta(seconds=float(headers.get("age", 0)))
            - _HALF_SECOND
        )
    except (ValueError, OverflowError):
        return None
    return ahead if abs(ahead) > max(_LEAST_DIFFERENCE, answered_at - sent_at) else timedelta(0)


def write_clock_ahead(folder: Path, ahead: timedelta) -> None:
    """Record how far this machine's clock is ahead of a vendor's.

    Nothing depends on the file, so it is no error when it cannot be written.
    """
    reading = {"boot": _boot(), "monotonic": _monotonic(), "vendors": time.time() - ahead.total_seconds()}
    if not reading["boot"]:
        return
    with suppress(OSError, ConfigurationError):
        replace_private(folder / _CLOCK_FILE, orjson.dumps(reading))


def read_clock_ahead(folder: Path) -> timedelta | None:
    """Return how far this machine's clock is ahead now.

    The result is None when that was not measured since the machine started, or for hours.
    """
    with suppress(OSError, ValueError, TypeError, KeyError, OverflowError):
        reading = orjson.loads((folder / _CLOCK_FILE).read_bytes())
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
