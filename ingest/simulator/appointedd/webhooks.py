"""Appointedd's webhooks (v1). https://developers.appointedd.com/docs/what-data-is-sent-with-a-webhook"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from ingest.simulator.dialect import Dialect, Webhook, milliseconds
from ingest.simulator.world import Change, Habits, Kind, Meeting

_TYPES = {Kind.CREATED: "booking_created", Kind.MOVED: "booking_updated", Kind.CANCELLED: "booking_cancelled"}
_HEADER = "X-Webhook-Token"

# The first digits of ids.
ORGANISATION = "5b"
SERVICE = "5d"
RESOURCE = "5f"
BOOKING = "63"
CUSTOMER = "64"
PARTICIPATION = "65"
QUESTION = "66"


class AppointeddDialect(Dialect):
    """Nothing is signed: a header holds the secret. After a change `updated` has whole seconds only."""

    vendor = "appointedd"
    habits = Habits(replaces_when_moved=False, reports=frozenset({Kind.CANCELLED}))

    def settings(self) -> Mapping[str, Any]:
        return {"vendor": self.vendor, "webhook_header": _HEADER}

    def webhook(self, change: Change) -> Webhook:
        return Webhook(
            "", orjson.dumps({"event_type": _TYPES[change.kind], "event_data": _data(change.meeting)})
        )

    def headers(self, webhook: Webhook, at: datetime) -> Mapping[str, str]:
        return {_HEADER: self.secret}

    def expected(self, meeting: Meeting) -> Mapping[str, Any]:
        return {
            "booking_id": object_id(meeting.number),
            "status": "cancelled" if meeting.last is Kind.CANCELLED else "confirmed",
            "starts_at": meeting.starts_at,
            "ends_at": meeting.ends_at,
            "timezone": meeting.customer.timezone,
            "service_name": meeting.service.name,
            "staff": [object_id(meeting.host.number, RESOURCE)],
            "staff_name": meeting.host.name,
            "customer_name": meeting.customer.name,
            "customer_email": meeting.customer.email,
            "price": meeting.service.price,
            "currency": None,
            "cancel_reason": None,
            "participants": 1,
            "answers": [{"question": label, "answer": _written(value)} for label, value in _answers(meeting)],
            "tracking": None,
            "guests": [],
            "cancelled_at": None,
            "conference_url": None,
        }


def object_id(number: int, prefix: str = BOOKING) -> str:
    """24 hexadecimal digits; the first two say of what."""
    return f"{prefix}{number:022x}"


def updated_at(meeting: Meeting) -> datetime:
    """To the millisecond on creation, whole seconds after a change."""
    return meeting.changed_at if meeting.last is Kind.CREATED else meeting.changed_at.replace(microsecond=0)


def questions(meeting: Meeting) -> list[dict[str, Any]]:
    """The form's questions with their answers, of a customer in webhooks and REST alike."""
    return [
        {"label": label, "value": value, "id": object_id(place, QUESTION)}
        for place, (label, value) in enumerate(_answers(meeting), 1)
    ]


def _answers(meeting: Meeting) -> list[tuple[str, str | bool]]:
    """Text, "" where nothing was answered, or a boolean, which a box to tick has."""
    return [*meeting.answers, ("First visit?", meeting.number % 2 == 0), ("Anything else?", "")]


def _written(value: str | bool) -> str | None:
    """As the warehouse has it."""
    return str(value).lower() if isinstance(value, bool) else value or None


def _data(meeting: Meeting) -> dict[str, Any]:
    host = meeting.host
    return {
        "organisation": {"id": object_id(1, ORGANISATION), "name": "Example Clinic"},
        "booking": {
            "id": object_id(meeting.number),
            "start_time": milliseconds(meeting.starts_at),
            "end_time": milliseconds(meeting.ends_at),
            "price": float(meeting.service.price),
            "created": milliseconds(meeting.created_at),
            "status": "Cancelled" if meeting.last is Kind.CANCELLED else "Confirmed",
            "type": "Hourly",
            "timezone": "Europe/London",
            "allow_online_group": False,
            "max_occupancy": 1,
            "last_modified_source": "appointment_screen",
            "updated": milliseconds(updated_at(meeting)),
        },
        "participants": [_participant(meeting)],
        "bookables": [{"id": object_id(host.number, RESOURCE), "name": host.name, "email": host.email}],
        "service": {"id": object_id(meeting.service.number, SERVICE), "name": meeting.service.name},
    }


def _participant(meeting: Meeting) -> dict[str, Any]:
    customer, price = meeting.customer, float(meeting.service.price)
    return {
        "id": object_id(customer.number, CUSTOMER),
        "firstname": customer.first_name,
        "lastname": customer.last_name,
        "timezone": customer.timezone,
        "email": customer.email,
        "marketing_opt_in": False,
        "spaces": 1,
        "booking_status": "No Status",
        "notes": "",
        "questions": questions(meeting),
        "customer_booking_id": object_id(meeting.number, PARTICIPATION),
        "total_price": price,
        "total_spaces": 1,
        "price_points": [{"price_per_quantity": price, "quantity": 1, "spaces_per_quantity": 1}],
        "custom_fields": [],
        "cancellation_url": f"https://book.example.com/cancel/{meeting.number:032x}",
        "reschedule_url": f"https://reschedule.example.com?token={meeting.number:032x}",
    }


DIALECT = AppointeddDialect
