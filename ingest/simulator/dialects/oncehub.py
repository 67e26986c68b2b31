"""OnceHub's webhooks (v2, booking calendars). https://help.oncehub.com/developers/api/"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from ingest.simulator.dialect import Dialect, Webhook, milliseconds
from ingest.simulator.world import Change, Habits, Kind, Meeting, Person
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
            "data": booking(meeting),
        }
        return Webhook("", orjson.dumps(envelope))

    def headers(self, webhook: Webhook, at: datetime) -> Mapping[str, str]:
        return sign(self.secret, webhook.body, at)

    def expected(self, meeting: Meeting) -> Mapping[str, Any]:
        ended = meeting.last is Kind.CANCELLED
        return {
            "booking_id": booking_id(meeting.number),
            "status": _EXPECTED.get(meeting.last, "confirmed"),
            "starts_at": meeting.starts_at,
            "ends_at": meeting.ends_at,
            "timezone": meeting.customer.timezone,
            "created_at": meeting.created_at.replace(microsecond=0),
            "service_name": meeting.service.name,
            "staff": [user_id(meeting.host.number)],
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


def booking_id(number: int) -> str:
    """Of a meeting."""
    return f"BKNG-{number:012d}"


def user_id(number: int) -> str:
    """Of a host."""
    return f"USR-{number:08d}"


def calendar_id(number: int) -> str:
    """Of a service."""
    return f"BKC-{number:08d}"


def status(meeting: Meeting) -> str:
    """OnceHub's word for what became of it."""
    return _WORDS[meeting.last]


def booking(meeting: Meeting) -> dict[str, Any]:
    """As webhooks have it."""
    cents = int(meeting.service.price * 100)
    paid = {"amount_charged": cents, "currency": meeting.service.currency, "transaction_id": f"ch_{meeting.number}"} if cents else None
    why = {"reason": meeting.reason or "", "actioned_by": "customer" if meeting.reason else "", "user_id": ""}
    return {
        "object": "booking",
        "id": booking_id(meeting.number),
        "tracking_id": f"TR-{meeting.number}",
        "subject": meeting.service.name,
        "status": status(meeting),
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
        "booking_calendar": {"id": calendar_id(meeting.service.number), "object": "booking_calendar", "name": meeting.service.name},
        "payment_information": paid,
        "external_calendar": {"type": "none", "name": "", "id": "", "event_id": ""},
        "conversation": None,
        "custom_fields": [],
    }


def _owner(meeting: Meeting) -> Any:
    """Both forms have been seen."""
    return user_id(meeting.host.number) if meeting.number % 2 else user(meeting.host)


def user(host: Person) -> dict[str, Any]:
    """A host as an expanded owner."""
    return {"id": user_id(host.number), "object": "user", "first_name": host.first_name, "last_name": host.last_name, "status": "active"}


def _form(meeting: Meeting) -> dict[str, Any]:
    customer = meeting.customer
    form = {"name": customer.name, "email": customer.email, "phone": customer.phone, "mobile_phone": "", "note": "", "company": ""}
    return form | {"guests": [], "custom_fields": []}


DIALECT = OncehubDialect
