"""What may be believed of a time that another clock, or this one at another moment, has written down. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from ingest.instant import format_instant

# How far two machines' clocks may differ without one of them being called wrong.
CLOCK_SKEW = timedelta(minutes=5)

# By less than this an HTTP answer cannot show that a clock is wrong: its `Date` is cut to the second.
_UNSHOWN = timedelta(seconds=5)
_CUT = timedelta(minutes=1)
_HALF_SECOND = timedelta(seconds=0.5)

_LAST = datetime.max.replace(tzinfo=UTC)
_INSTANT = len(format_instant(_LAST))


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
    return any(part[:_INSTANT] > latest for part in version.split("/"))


def is_long_before(version: str, moment: datetime) -> bool:
    """Say whether a version is of a time before another one by more than vendors cut off their times, which is a minute at most."""
    try:
        return version[:_INSTANT] < format_instant(moment - _CUT)
    except OverflowError:
        return False


def with_instant(version: str, moment: datetime) -> str:
    """Put another time into a version, and keep what the vendor's module has put behind the time."""
    return f"{format_instant(moment)}{version[_INSTANT:]}"


def ahead_of(headers: Mapping[str, str], asked: datetime, answered: datetime) -> timedelta | None:
    """Return how far this machine's clock is ahead of that of who answered, by the HTTP headers `Date` and `Age`.

    Negative when it is behind; zero for what is too little to be shown by an answer that took so long; None where the headers do not tell.
    """
    try:
        there = parsedate_to_datetime(headers["date"]) + timedelta(seconds=float(headers.get("age", 0))) + _HALF_SECOND
        ahead = asked + (answered - asked) / 2 - there
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return ahead if abs(ahead) > max(_UNSHOWN, answered - asked) else timedelta(0)
