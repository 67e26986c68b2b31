"""How an instant is written on the command line."""

import re
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from ingest.duration import Duration
from ingest.errors import ConfigurationError
from ingest.instant import utc

_DURATION = TypeAdapter(Duration)
_AGO = re.compile(r"[0-9.]+(ms|s|m|h|d)?")
_DAYS = re.compile(r"[0-9]+d")


def instant_of(option: str, text: str, now: datetime) -> datetime:
    """A date is its first moment, in UTC; days ago are too. Raises ConfigurationError, naming the option."""
    try:
        if _AGO.fullmatch(text) and not re.fullmatch(r"\d{4,}", text):
            ago: timedelta = _DURATION.validate_python(text)
            start = now - ago
            # Whole days begin with a day, so that a run that is started again goes on.
            return (
                start.replace(hour=0, minute=0, second=0, microsecond=0) if _DAYS.fullmatch(text) else start
            )
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else utc(found)
    except (ValueError, ValidationError, OverflowError):
        raise ConfigurationError(
            f"{option} {text}: write a date (2026-11-01), an instant (2026-11-01T09:00Z) or how long ago (30d)"
        ) from None


def span_of(
    since: str, until: str, now: datetime, otherwise: datetime | None = None
) -> tuple[datetime | None, datetime | None]:
    """From --since, until --until; "" is none. `otherwise` is where it begins without --since. Raises ConfigurationError."""
    begin, end = (
        instant_of(option, text, now) if text else None
        for option, text in (("--since", since), ("--until", until))
    )
    start = begin or otherwise
    if start and start >= (end or now):
        raise ConfigurationError("--since must be before --until, and before now")
    return begin, end
