"""Appointedd's webhooks (v1). https://developers.appointedd.com/docs/what-data-is-sent-with-a-webhook"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from ingest.simulator.dialect import Dialect, Webhook, milliseconds
from ingest.simulator.world import Change, Habits, Kind, Meeting

_TYPES = {Kind.CREATED: "booking_created", Kind.MOVED: "booking_updated", Kind.CANCELLED: "booking_cancelled"}
_HEADER = "X-Webhook-Token"


class AppointeddDialect(Dialect):
    """Nothing is signed: a header holds the secret. After a change `updated` has whole seconds only."""

    vendor = "appointedd"
    habits = Habits(replaces_when_moved=False, reports=frozenset({Kind.CANCELLED}))

    def settings(self) -> Mapping[str, Any]:
        return {"vendor": self.vendor, "webhook_header": _HEADER}

    def webhook(self, change: Change) -> Webhook:
        return Webhook("", orjson.dumps({"event_type": _TYPES[change.kind], "event_data": _data(change.meeting)}))

    def headers(self, webhook: Webhook, at: datetime) -> Mapping[str, str]:
        return {_HEADER: self.secret}

    def expected(self, meeting: Meeting) -> Mapping[str, Any]:
        return {
            "booking_id": _id(meeting.number),
            "status": "cancelled" if meeting.last is Kind.CANCELLED else "confirmed",
            "starts_at": meeting.starts_at,
            "ends_at": meeting.ends_at,
            "timezone": meeting.customer.timezone,
            "service_name": meeting.service.name,
            "staff": [_id(meeting.host.number, "5f")],
            "staff_name": meeting.host.name,
            "customer_name": meeting.customer.name,
            "customer_email": meeting.customer.email,
            "price": meeting.service.price,
            "currency": None,
            "cancel_reason": None,
            "participants": 1,
        }


def _id(number: int, prefix: str = "63") -> str:
    return f"{prefix}{number:022x}"


def _data(meeting: Meeting) -> dict[str, Any]:
    changed = meeting.changed_at if meeting.last is Kind.CREATED else meeting.changed_at.replace(microsecond=0)
    host = meeting.host
    return {
        "organisation": {"id": _id(1, "5b"), "name": "Example Clinic"},
        "booking": {
            "id": _id(meeting.number),
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
            "updated": milliseconds(changed),
        },
        "participants": [_participant(meeting)],
        "bookables": [{"id": _id(host.number, "5f"), "name": host.name, "email": host.email}],
        "service": {"id": _id(meeting.service.number, "5d"), "name": meeting.service.name},
    }


def _participant(meeting: Meeting) -> dict[str, Any]:
    customer, price = meeting.customer, float(meeting.service.price)
    return {
        "id": _id(customer.number, "64"),
        "firstname": customer.first_name,
        "lastname": customer.last_name,
        "timezone": customer.timezone,
        "email": customer.email,
        "marketing_opt_in": False,
        "spaces": 1,
        "booking_status": "No Status",
        "notes": "",
        "questions": [{"label": "First visit?", "value": True, "id": _id(7, "5e")}],
        "customer_booking_id": _id(meeting.number, "65"),
        "total_price": price,
        "total_spaces": 1,
        "price_points": [{"price_per_quantity": price, "quantity": 1, "spaces_per_quantity": 1}],
        "custom_fields": [],
        "cancellation_url": f"https://book.example.com/cancel/{meeting.number:032x}",
        "reschedule_url": f"https://reschedule.example.com?token={meeting.number:032x}",
    }


DIALECT = AppointeddDialect
