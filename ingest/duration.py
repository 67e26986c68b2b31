"""Durations in settings: `250ms`, `90`, `"90s"`, `"15m"`, `"2h"`, `"3d"`."""

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


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
