"""Instants and durations, each with its form as text.

An instant is an aware UTC datetime, and text of one fixed width, which sorts as time does. A duration is
`250ms`, `90`, `"15m"` or `"15 minutes"` in settings, and `2 h 5 min` in messages.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import orjson
from pydantic import BeforeValidator, WithJsonSchema

from ingest.errors import PayloadError

# Forms of the standard that Python does not read: midnight as the end of a day, and leap seconds.
# https://www.rfc-editor.org/rfc/rfc3339#section-5.7
_END_OF_DAY = re.compile(r"(?<=[T ])24(?=:00(?::00(?:[.,]0+)?)?(?:Z|[+-]|$))")
_LEAP_SECOND = re.compile(r"(?<=:[25]9:)60(?=[.,]|Z|[+-]|$)")
_INSTANT_LENGTH = 27
_LAST = datetime.max.replace(tzinfo=UTC)
_FIRST = datetime.min.replace(tzinfo=UTC)

# Each unit, as timedelta names it, by the words people write for it.
_UNITS = {
    word: unit
    for unit, words in {
        "milliseconds": "ms msec msecs millisecond milliseconds",
        "seconds": "s sec secs second seconds",
        "minutes": "m min mins minute minutes",
        "hours": "h hr hrs hour hours",
        "days": "d day days",
    }.items()
    for word in words.split()
} | {"": "seconds"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")
_SHORT = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}


def parse_instant(text: str) -> datetime:
    """Parse ISO 8601 with a zone.

    Raises PayloadError for anything else, such as a time without a zone or outside the years 1 to 9999.
    """
    try:
        try:
            return utc(datetime.fromisoformat(text))
        except ValueError:
            if moment := parse_rare_form(text):
                return utc(moment)
            raise
    except (ValueError, OverflowError) as error:
        raise PayloadError(f"not an ISO 8601 instant: {text[:40]!r}") from error


def parse_rare_form(text: str) -> datetime | None:
    """Parse a time with 24:00 or a leap second; None when the text has neither.

    Raises ValueError, and OverflowError beyond the year 9999.
    """
    if "24:00" in text and _END_OF_DAY.search(text):
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
    if moment.tzinfo is not UTC:
        moment = utc(moment)
    if type(moment) is not datetime:  # orjson takes no subclasses, such as pendulum's
        return datetime.isoformat(moment, timespec="microseconds").replace("+00:00", "Z")
    # In a fifth of the time that `isoformat` takes; it leaves out microseconds that are 0.
    text = orjson.dumps(moment, option=orjson.OPT_UTC_Z)[1:-1].decode()
    return text if len(text) == _INSTANT_LENGTH else text[:-1] + ".000000Z"


def parse_duration(value: object) -> timedelta:
    """Parse a duration; a number alone is seconds. Raises ValueError."""
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(str(value).strip().lower())
    if not match or match[2] not in _UNITS:
        # The value is not shown: it may be a secret.
        raise ValueError("not a duration: write 250ms, 90, 90s, 15m, 2h or 3d")
    try:
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError:
        raise ValueError("not a duration that a calendar holds") from None


def format_duration(duration: timedelta) -> str:
    """Return the shortest form that `parse_duration` reads as the same duration: `90s`, `15m`, `250ms`."""
    unit = next((unit for unit, length in _SHORT.items() if duration and not duration % length), "s")
    return f"{duration // _SHORT[unit]}{unit}"


def describe_skew(ahead: timedelta) -> str:
    """Describe how far a clock differs from another one: `2 min ahead of`, or `2 min behind` if negative."""
    return f"{describe_duration(ahead)} {'ahead of' if ahead > timedelta(0) else 'behind'}"


def describe_duration(span: timedelta) -> str:
    """Describe a duration without its sign in its two largest units: `3 d 4 h`, `2 min`, `120 ms`."""
    if abs(span) < timedelta(seconds=1):
        return f"{abs(span) / timedelta(milliseconds=1):.0f} ms"
    seconds = int(abs(span).total_seconds())
    parts = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        parts.append((count, unit))
    first = next(index for index, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*[A-Za-z]*\s*$"},
            ]
        }
    ),
]
