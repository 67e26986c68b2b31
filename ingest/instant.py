"""Instants, as aware UTC datetimes and as text of one fixed width, which sorts as time does."""

import re
from datetime import UTC, datetime, timedelta

from ingest.errors import PayloadError

# Forms of the standard that Python does not read: midnight as the end of a day, and leap seconds.
# https://www.rfc-editor.org/rfc/rfc3339#section-5.7
_END_OF_DAY = re.compile(r"(?<=[T ])24(?=:00(?::00(?:[.,]0+)?)?(?:Z|[+-]|$))")
_LEAP_SECOND = re.compile(r"(?<=:[25]9:)60(?=[.,]|Z|[+-]|$)")
_LAST = datetime.max.replace(tzinfo=UTC)
_FIRST = datetime.min.replace(tzinfo=UTC)


def parse_instant(text: str) -> datetime:
    """Parse ISO 8601 with a zone.

    Raises PayloadError for anything else, such as a time without a zone or outside the years 1 to 9999.
    """
    try:
        return utc(parse_rare_form(text) or datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        raise PayloadError(f"not an ISO 8601 instant: {text[:40]!r}") from error


def parse_rare_form(text: str) -> datetime | None:
    """Parse a time with 24:00 or a leap second; None when the text has neither.

    Raises ValueError, and OverflowError beyond the year 9999.
    """
    if "24:" not in text and ":60" not in text:  # as nearly always
        return None
    if _END_OF_DAY.search(text):
        return datetime.fromisoformat(_END_OF_DAY.sub("00", text)) + timedelta(days=1)
    if ":60" in text and _LEAP_SECOND.search(text):
        return datetime.fromisoformat(_LEAP_SECOND.sub("59", text)) + timedelta(seconds=1)
    return None


def utc(moment: datetime) -> datetime:
    """Return the instant in UTC.

    Raises ValueError for a naive datetime, and when it is outside the years 1 to 9999 in UTC.
    """
    if moment.tzinfo is UTC:
        return moment
    if moment.tzinfo is None:
        raise ValueError("a time without a zone is not an instant")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("an instant outside the years 1 to 9999 cannot be kept") from None


def parse_stored_instant(moment: datetime | str) -> datetime:
    """Return a warehouse's value as an instant.

    A time without a zone is in UTC there, and text is a time outside the years 1 to 9999, which becomes the
    first or the last instant.
    """
    if isinstance(moment, str):
        return (
            _FIRST
            if moment.endswith(("BC", "(BC)")) or " (BC) " in moment or moment.startswith("-")
            else _LAST
        )
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def format_instant(moment: datetime) -> str:
    """Format an instant in 27 characters, with microseconds and `Z`, which sort as instants do."""
    return utc(moment).isoformat(timespec="microseconds").replace("+00:00", "Z")
