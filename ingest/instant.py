"""Instants: text to aware UTC datetimes and back, in one fixed-width form that sorts as time does."""

import re
from datetime import UTC, datetime, timedelta

from ingest.errors import PayloadError

# What the standard has and Python does not: midnight as the end of a day, and leap seconds. https://www.rfc-editor.org/rfc/rfc3339#section-5.7
_END_OF_DAY = re.compile(r"(?<=[T ])24(?=:00(?::00(?:[.,]0+)?)?(?:Z|[+-]|$))")
_LEAP_SECOND = re.compile(r"(?<=:[25]9:)60(?=[.,]|Z|[+-]|$)")
_LAST = datetime.max.replace(tzinfo=UTC)
_FIRST = datetime.min.replace(tzinfo=UTC)


def parse_instant(text: str) -> datetime:
    """ISO 8601 with a zone -> UTC datetime. Raises PayloadError: a time without a zone, or outside the years 1 to 9999, is not an instant."""
    try:
        return utc(read_rare(text) or datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        raise PayloadError(f"not an ISO 8601 instant: {text[:40]!r}") from error


def read_rare(text: str) -> datetime | None:
    """Read 24:00 and leap seconds; None where the text has neither. Raises ValueError, and OverflowError beyond the year 9999."""
    if _END_OF_DAY.search(text):
        return datetime.fromisoformat(_END_OF_DAY.sub("00", text)) + timedelta(days=1)
    if _LEAP_SECOND.search(text):
        return datetime.fromisoformat(_LEAP_SECOND.sub("59", text)) + timedelta(seconds=1)
    return None


def utc(moment: datetime) -> datetime:
    """The same instant in UTC. Raises ValueError for a naive datetime, and for what is in UTC outside the years 1 to 9999."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone is not an instant")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("an instant outside the years 1 to 9999 cannot be kept") from None


def as_utc(moment: datetime | str) -> datetime:
    """Read what a warehouse gave back: there a time without a zone is in UTC, and text is a time outside the years 1 to 9999."""
    if isinstance(moment, str):
        return (
            _FIRST
            if moment.endswith(("BC", "(BC)")) or " (BC) " in moment or moment.startswith("-")
            else _LAST
        )
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def format_instant(moment: datetime) -> str:
    """27 characters, microseconds, `Z`: comparing two such texts compares the instants."""
    return f"{utc(moment).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
