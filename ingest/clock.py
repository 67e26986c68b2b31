"""Which times may be believed, and how far this machine's clock is off. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from ingest.instant import format_instant

# How far two machines' clocks may differ without one of them being called wrong.
CLOCK_SKEW = timedelta(minutes=5)
# How far reconciliation looks back where the time up to which everything was compared is of the future: nobody knows how far that clock was ahead.
LOOKBACK_IN_DOUBT = timedelta(days=31)

CLOCK_REMEDY = "set this machine's clock, and keep it with NTP, for example timedatectl set-ntp true"

# A smaller difference from an HTTP answer's `Date` proves nothing: that is cut to the second, and on its way for a while.
_LEAST_DIFFERENCE = timedelta(seconds=5)
# The coarsest unit to which vendors cut times.
_COARSEST = timedelta(minutes=1)
_HALF_SECOND = timedelta(seconds=0.5)

_LAST = datetime.max.replace(tzinfo=UTC)
_INSTANT_LENGTH = len(format_instant(_LAST))


def is_future(moment: datetime, now: datetime) -> bool:
    """Say whether a time is further ahead of `now` than clocks may differ: it was written by a clock that was wrong."""
    return moment > later(now, CLOCK_SKEW)


def is_recent(moment: datetime, now: datetime, span: timedelta) -> bool:
    """Say whether a time is at most `span` before `now`. One of the future is not believed, so it is not recent either."""
    return now - moment <= span and not is_future(moment, now)


def later(moment: datetime, by: timedelta) -> datetime:
    """Add a span; the last instant there is where that would lead beyond it."""
    return moment + by if _LAST - moment > by else _LAST


def is_ahead(version: str, limit: datetime) -> bool:
    """Say whether a version, or either part of a row's `state/event`, is of a time after `limit`."""
    latest = format_instant(limit)
    return any(part[:_INSTANT_LENGTH] > latest for part in version.split("/"))


def is_future_version(version: str, now: datetime) -> bool:
    """Say whether a version, or either part of a row's, is of a time further ahead of `now` than clocks may differ."""
    return is_ahead(version, later(now, CLOCK_SKEW))


def is_long_before(version: str, moment: datetime) -> bool:
    """Say whether a version is of a time before `moment`, by more than the minute to which vendors may cut times."""
    try:
        return version[:_INSTANT_LENGTH] < format_instant(moment - _COARSEST)
    except OverflowError:
        return False


def with_instant(version: str, moment: datetime) -> str:
    """Put another time into a version, and keep what the vendor's module has put behind the time."""
    return f"{format_instant(moment)}{version[_INSTANT_LENGTH:]}"


def server_time(headers: Mapping[str, str]) -> datetime | None:
    """Return the time at which an HTTP answer was made, by the clock of whoever made it; None where its `Date` does not tell."""
    try:
        return parsedate_to_datetime(headers["date"]).astimezone(UTC)
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def clock_ahead(headers: Mapping[str, str], asked: datetime, answered: datetime) -> timedelta | None:
    """Return how far this machine's clock is ahead of the server's, by the HTTP headers `Date` and `Age` of an answer.

    Negative when it is behind; zero where the difference is too small for an answer that took so long; None where the headers do not tell.
    """
    made_at = server_time(headers)
    if made_at is None:
        return None
    try:
        ahead = (
            asked
            + (answered - asked) / 2
            - made_at
            - timedelta(seconds=float(headers.get("age", 0)))
            - _HALF_SECOND
        )
    except (ValueError, OverflowError):
        return None
    return ahead if abs(ahead) > max(_LEAST_DIFFERENCE, answered - asked) else timedelta(0)
