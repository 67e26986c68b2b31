"""Instants: text to aware UTC datetimes and back, in one fixed-width form that sorts as time does."""

from datetime import UTC, datetime

from ingest.errors import PayloadError


def parse_instant(text: str) -> datetime:
    """ISO 8601 with a zone -> UTC datetime. Raises PayloadError: a time without a zone is not an instant."""
    try:
        return utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        raise PayloadError(f"not an ISO 8601 instant: {text[:40]!r}") from error


def utc(moment: datetime) -> datetime:
    """The same instant in UTC. Raises ValueError for a naive datetime."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone is not an instant")
    return moment.astimezone(UTC)


def as_utc(moment: datetime) -> datetime:
    """What a warehouse gave back: there a time without a zone is one in UTC."""
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def format_instant(moment: datetime) -> str:
    """27 characters, microseconds, `Z`: comparing two such texts compares the instants."""
    return f"{utc(moment).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
