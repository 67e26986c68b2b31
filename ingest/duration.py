"""Durations in settings: `250ms`, `90`, `"90s"`, `"15m"`, `"2h"`, `"3d"`; and in messages: `2 h 5 min`."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator

_UNITS = {"": "seconds", "ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)")


def parse_duration(value: object) -> timedelta:
    """Raises ValueError, which settings turn into a ConfigurationError naming the key."""
    if isinstance(value, timedelta):
        return value
    match = _FORM.fullmatch(str(value).strip())
    if not match:
        raise ValueError("not a duration: write 250ms, 90, 90s, 15m, 2h or 3d")  # which value it was is not told: it may be a secret
    try:
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError:
        raise ValueError("not a duration that a calendar holds") from None


def format_duration(span: timedelta) -> str:
    """Write a duration of a second or more in its two largest units, the rest cut off: `3 d 4 h`, `2 min`, `45 s`; a shorter one in ms."""
    if abs(span) < timedelta(seconds=1):
        return f"{span / timedelta(milliseconds=1):.0f} ms"
    seconds = int(span.total_seconds())
    parts = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        parts.append((count, unit))
    first = next(place for place, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
