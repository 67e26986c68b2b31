"""Durations: `250ms`, `90`, `"15m"` or `"15 minutes"` in settings, `2 h 5 min` in messages."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

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
_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")
_SHORT = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}


def parse_duration(value: object) -> timedelta:
    """Parse a duration; a number alone is seconds. Raises ValueError."""
    if isinstance(value, timedelta):
        return value
    match = _FORM.fullmatch(str(value).strip().lower())
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
