"""Spans of time as people write them: `--since` and `--until`, as dates, instants, or how long ago."""

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError

from ingest.errors import ConfigurationError
from ingest.times import Duration, utc

_DURATION = TypeAdapter(Duration)
_AGO = re.compile(r"[0-9.]+(ms|s|m|h|d)?")
_DAYS = re.compile(r"[0-9]+d")
_YEAR = re.compile(r"\d{4,}")


class PeriodKind(StrEnum):
    """What hours are rolled up into, in UTC."""

    DAY = "day"
    MONTH = "month"


def parse_span(
    since: str, until: str, now: datetime, default_since: datetime | None = None
) -> tuple[datetime | None, datetime | None]:
    """Parse --since and --until; an empty text is None.

    `default_since` is where the span begins without --since; it is checked, not returned. Raises
    ConfigurationError.
    """
    begin = parse_instant("--since", since, now) if since else None
    end = parse_instant("--until", until, now) if until else None
    first = begin or default_since
    if first and first >= (end or now):
        raise ConfigurationError("--since must be before --until, and before now")
    return begin, end


def parse_instant(option: str, text: str, now: datetime) -> datetime:
    """Parse a date (its first moment in UTC), an instant or how long ago.

    Raises ConfigurationError, which names the option.
    """
    try:
        if _AGO.fullmatch(text) and not _YEAR.fullmatch(text):
            duration: timedelta = _DURATION.validate_python(text)
            instant = now - duration
            # Whole days begin at midnight, so that a run that is started again covers the same span.
            is_days = _DAYS.fullmatch(text)
            return instant.replace(hour=0, minute=0, second=0, microsecond=0) if is_days else instant
        instant = datetime.fromisoformat(text)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else utc(instant)
    except (ValueError, ValidationError, OverflowError):
        raise ConfigurationError(
            f"{option} {text}: write a date (2026-11-01), an "
            "instant (2026-11-01T09:00Z) or how long ago (30d)"
        ) from None
