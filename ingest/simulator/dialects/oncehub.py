"""OnceHub's webhooks (v2, booking calendars). https://help.oncehub.com/developers/api/"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from ingest.simulator.dialect import Dialect, Webhook, milliseconds
from ingest.simulator.world import Change, Habits, Kind, Meeting
from ingest.vendors.oncehub import sign

_TYPES = {
    Kind.CREATED: "booking.scheduled",
    Kind.MOVED: "booking.rescheduled",
    Kind.CANCELLED: "booking.canceled",
    Kind.COMPLETED: "booking.completed",
    Kind.NO_SHOW: "booking.no_show",
}
_WORDS = {
    Kind.CREATED: "scheduled",
    Kind.MOVED: "rescheduled",
    Kind.CANCELLED: "canceled",
    Kind.COMPLETED: "completed",
    Kind.NO_SHOW: "no_show",
}
_EXPECTED = {Kind.CANCELLED: "cancelled", Kind.COMPLETED: "completed", Kind.NO_SHOW: "no_show"}


class OncehubDialect(Dialect):
    """A meeting keeps its id when it is moved, in status `rescheduled`, which stands. Owners are ids or whole objects."""

    vendor = "oncehub"
    habits = Habits(replaces_when_moved=False, reports=frozenset({Kind.CANCELLED, Kind.COMPLETED, Kind.NO_SHOW}))

    def settings(self) -> Mapping[str, Any]:
        return {"vendor": self.vendor}

    def webhook(self, change: Change) -> Webhook:
        meeting = change.meeting
        envelope = {
            "id": f"EVNT-{meeting.number:08d}{change.kind.upper()}{int(meeting.changed_at.timestamp() * 1000):X}",
            "object": "event",
            "creation_time": milliseconds(meeting.changed_at),
            "type": _TYPES[change.kind],
            "api_version": "v2",
            "data": _booking(meeting),
        }
        return Webhook("", orjson.dumps(envelope))

    def headers(self, webhook: Webhook, at: datetime) -> Mapping[str, str]:
        return sign(self.secret, webhook.body, at)

    def expected(self, meeting: Meeting) -> Mapping[str, Any]:
        ended = meeting.last is Kind.CANCELLED
        return {
            "booking_id": _id(meeting.number),
            "status": _EXPECTED.get(meeting.last, "confirmed"),
            "starts_at": meeting.starts_at,
            "ends_at": meeting.ends_at,
            "timezone": meeting.customer.timezone,
            "created_at": meeting.created_at.replace(microsecond=0),
            "service_name": meeting.service.name,
            "staff": [f"USR-{meeting.host.number:08d}"],
            "customer_name": meeting.customer.name,
            "customer_email": meeting.customer.email,
            "customer_phone": meeting.customer.phone,
            "price": meeting.service.price or None,
            "currency": meeting.service.currency if meeting.service.price else None,
            "cancel_reason": meeting.reason if ended else None,
            "cancelled_by": "customer" if ended else None,
            "rescheduled_from": None,
            "rescheduled_to": None,
        }


def _id(number: int) -> str:
    return f"BKNG-{number:012d}"


def _booking(meeting: Meeting) -> dict[str, Any]:
    cents = int(meeting.service.price * 100)
    paid = {"amount_charged": cents, "currency": meeting.service.currency, "transaction_id": f"ch_{meeting.number}"} if cents else None
    why = {"reason": meeting.reason or "", "actioned_by": "customer" if meeting.reason else "", "user_id": ""}
    return {
        "object": "booking",
        "id": _id(meeting.number),
        "tracking_id": f"TR-{meeting.number}",
        "subject": meeting.service.name,
        "status": _WORDS[meeting.last],
        "in_trash": False,
        "creation_time": milliseconds(meeting.created_at),
        "starting_time": milliseconds(meeting.starts_at),
        "last_updated_time": milliseconds(meeting.changed_at),
        "customer_timezone": meeting.customer.timezone,
        "duration_minutes": meeting.service.minutes,
        "owner": _owner(meeting),
        "virtual_conferencing": {"join_url": ""},
        "location_description": "Main office",
        "rescheduled_booking_id": "",
        "cancel_reschedule_information": why,
        "attendees": [meeting.host.email, meeting.customer.email],
        "form_submission": _form(meeting),
        "booking_page": None,
        "master_page": None,
        "event_type": "",
        "booking_calendar": {"id": f"BKC-{meeting.service.number:08d}", "object": "booking_calendar", "name": meeting.service.name},
        "payment_information": paid,
        "external_calendar": {"type": "none", "name": "", "id": "", "event_id": ""},
        "conversation": None,
        "custom_fields": [],
    }


def _owner(meeting: Meeting) -> Any:
    """Both forms have been seen."""
    host = f"USR-{meeting.host.number:08d}"
    whole = {"id": host, "object": "user", "first_name": meeting.host.first_name, "last_name": meeting.host.last_name, "status": "active"}
    return host if meeting.number % 2 else whole


def _form(meeting: Meeting) -> dict[str, Any]:
    customer = meeting.customer
    form = {"name": customer.name, "email": customer.email, "phone": customer.phone, "mobile_phone": "", "note": "", "company": ""}
    return form | {"guests": [], "custom_fields": []}


DIALECT = OncehubDialect
