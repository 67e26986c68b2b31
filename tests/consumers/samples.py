"""OnceHub's events for tests."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from consumers.batch import Topics
from ingest.event import Event

START = datetime(2026, 5, 1, 9, tzinfo=UTC)
SOURCE = "/oncehub/support"
TOPIC = "bookings.oncehub"
TOPICS = Topics(dead_letters="bookings.dead-letters", audit="bookings.audit")


def moment(seconds: float) -> datetime:
    """Return the instant that many seconds after the first day of the samples began."""
    return START + timedelta(seconds=seconds)


def sample(
    number: int, booking: str = "B1", at: float = 0, *, received_at: datetime | None = None, **data: Any
) -> Event:
    """Return the event with this number: what the booking was at that second.

    `data` replaces parts of the booking.
    """
    changed = moment(at)
    booking_data = {
        "id": booking,
        "creation_time": START.isoformat(),
        "last_updated_time": changed.isoformat(),
        "status": "scheduled",
        "subject": f"told by E{number}",
        "form_submission": {"name": "Ada Example", "email": "ada@example.com"},
    }
    return in_envelope(number, booking_data | data, changed, received_at or changed, subject=booking)


def in_envelope(
    number: int, data: dict[str, Any], time: datetime, received_at: datetime, subject: str = "other"
) -> Event:
    """Return an event with any `data` in the envelope of a booking's event."""
    body = {"id": f"E{number}", "type": "booking.scheduled", "creation_time": time.isoformat(), "data": data}
    return Event(
        id=f"E{number}",
        source=SOURCE,
        type="oncehub.booking.scheduled",
        subject=subject,
        time=time,
        received_at=received_at,
        data=orjson.dumps(body),
    )
