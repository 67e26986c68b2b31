"""Appointedd's webhooks (v1).

https://developers.appointedd.com/docs/what-data-is-sent-with-a-webhook
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from ingest.simulator.account import SimulatedAccount, Webhook, format_milliseconds
from ingest.simulator.world import Capabilities, Change, ChangeKind, Meeting

_TYPES = {
    ChangeKind.CREATED: "booking_created",
    ChangeKind.MOVED: "booking_updated",
    ChangeKind.CANCELLED: "booking_cancelled",
}
_HEADER = "X-Webhook-Token"

# The first digits of ids, by kind.
ORGANISATION = "5b"
SERVICE = "5d"
RESOURCE = "5f"
BOOKING = "63"
CUSTOMER = "64"
PARTICIPATION = "65"
QUESTION = "66"


class SimulatedAppointedd(SimulatedAccount):
    """An Appointedd account, whose webhooks are not signed: a header has the secret.

    After a change `updated` has whole seconds only.
    """

    vendor = "appointedd"
    capabilities = Capabilities(replaces_when_moved=False, reports=frozenset({ChangeKind.CANCELLED}))

    def settings(self) -> Mapping[str, Any]:
        return {"vendor": self.vendor, "webhook_header": _HEADER}

    def webhook(self, change: Change) -> Webhook:
        body = {"event_type": _TYPES[change.kind], "event_data": _event_data(change.meeting)}
        return Webhook("", orjson.dumps(body))

    def headers(self, webhook: Webhook, sent_at: datetime) -> Mapping[str, str]:
        return {_HEADER: self.secret}

    def expected(self, meeting: Meeting) -> Mapping[str, Any]:
        return {
            "booking_id": object_id(meeting.number),
            "status": "cancelled" if meeting.last_change is ChangeKind.CANCELLED else "confirmed",
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
            "answers": [
                {"question": label, "answer": _expected_answer(value)} for label, value in _answers(meeting)
            ],
            "tracking": None,
            "guests": [],
            "cancelled_at": None,
            "conference_url": None,
        }


def object_id(number: int, prefix: str = BOOKING) -> str:
    """Return an id of 24 hexadecimal digits, of which the first two are the kind."""
    return f"{prefix}{number:022x}"


def updated_at(meeting: Meeting) -> datetime:
    """Return the time of the latest change, which has whole seconds only unless it is the creation."""
    return (
        meeting.changed_at
        if meeting.last_change is ChangeKind.CREATED
        else meeting.changed_at.replace(microsecond=0)
    )


def questions(meeting: Meeting) -> list[dict[str, Any]]:
    """Return the form's questions with their answers, which webhooks and the API have alike."""
    return [
        {"label": label, "value": value, "id": object_id(position, QUESTION)}
        for position, (label, value) in enumerate(_answers(meeting), 1)
    ]


def _answers(meeting: Meeting) -> list[tuple[str, str | bool]]:
    """Return the questions and answers: text, "" for no answer, or a boolean for a checkbox."""
    return [*meeting.answers, ("First visit?", meeting.number % 2 == 0), ("Anything else?", "")]


def _expected_answer(value: str | bool) -> str | None:
    """Return an answer as the warehouse should have it."""
    return str(value).lower() if isinstance(value, bool) else value or None


def _event_data(meeting: Meeting) -> dict[str, Any]:
    host = meeting.host
    return {
        "organisation": {"id": object_id(1, ORGANISATION), "name": "Example Clinic"},
        "booking": {
            "id": object_id(meeting.number),
            "start_time": format_milliseconds(meeting.starts_at),
            "end_time": format_milliseconds(meeting.ends_at),
            "price": float(meeting.service.price),
            "created": format_milliseconds(meeting.created_at),
            "status": "Cancelled" if meeting.last_change is ChangeKind.CANCELLED else "Confirmed",
            "type": "Hourly",
            "timezone": "Europe/London",
            "allow_online_group": False,
            "max_occupancy": 1,
            "last_modified_source": "appointment_screen",
            "updated": format_milliseconds(updated_at(meeting)),
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
