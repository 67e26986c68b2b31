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
_CALENDARS = ("google", "office365oauth", "icloud", "office_365", "exchange", "none")
_PLACE = "Main office"
_EXPECTED = {Kind.CANCELLED: "cancelled", Kind.COMPLETED: "completed", Kind.NO_SHOW: "no_show"}


class OncehubDialect(Dialect):
    """A meeting keeps its id when it is moved, in status `rescheduled`, which stands. Owners are ids or whole objects.

    One meeting in three is booked in a conversation, which tells the customer in the form's stead.
    """

    vendor = "oncehub"
    habits = Habits(
        replaces_when_moved=False, reports=frozenset({Kind.CANCELLED, Kind.COMPLETED, Kind.NO_SHOW})
    )

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
        ended, link = meeting.last is Kind.CANCELLED, _join_url(meeting)
        own = {"customer_id": contact_id(meeting.customer.number)} if by_conversation(meeting) else {}
        return own | {
            "booking_id": booking_id(meeting.number),
            "status": _EXPECTED.get(meeting.last, "confirmed"),
            "starts_at": meeting.starts_at,
            "ends_at": meeting.ends_at,
            "timezone": meeting.customer.timezone,
            "created_at": meeting.created_at.replace(
                microsecond=meeting.created_at.microsecond // 1000 * 1000
            ),
            "service_name": meeting.service.name,
            "staff": [user_id(meeting.host.number)],
            "location": link or _PLACE,
            "conference_url": link if link.startswith("https:") else None,
            "customer_name": meeting.customer.name,
            "customer_email": meeting.customer.email,
            "customer_phone": meeting.customer.phone,
            "participants": 1 + len(meeting.guests),
            "guests": [*meeting.guests],
            "answers": _expected_answers(meeting),
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


def contact_id(number: int) -> str:
    """Of a customer."""
    return f"CTC-{number:08d}"


def conversation_id(number: int) -> str:
    """Of the conversation in which a meeting was booked."""
    return f"CVR-{number:08d}"


def by_conversation(meeting: Meeting) -> bool:
    """Whether it was booked in a conversation with a chatbot: then there is no form, and nobody comes along."""
    return not meeting.guests


def status(meeting: Meeting) -> str:
    """OnceHub's word for what became of it."""
    return _WORDS[meeting.last]


def booking(meeting: Meeting) -> dict[str, Any]:
    """As webhooks have it."""
    cents = int(meeting.service.price * 100)
    paid = (
        {
            "amount_charged": cents,
            "currency": meeting.service.currency,
            "transaction_id": f"ch_{meeting.number}",
        }
        if cents
        else None
    )
    why = {"reason": meeting.reason or "", "actioned_by": "customer" if meeting.reason else "", "user_id": ""}
    host, number = meeting.host, meeting.number
    return {
        "object": "booking",
        "id": booking_id(number),
        "tracking_id": f"TR-{number}",
        "subject": meeting.service.name,
        "status": status(meeting),
        "in_trash": False,
        "creation_time": milliseconds(meeting.created_at),
        "starting_time": milliseconds(meeting.starts_at),
        "last_updated_time": milliseconds(meeting.changed_at),
        "customer_timezone": meeting.customer.timezone,
        "duration_minutes": meeting.service.minutes,
        "owner": _owner(meeting),
        "virtual_conferencing": {"join_url": _join_url(meeting)},
        "location_description": _PLACE,
        "rescheduled_booking_id": "",
        "cancel_reschedule_url": f"https://book.example.com/change/{number:032x}",
        "cancel_reschedule_information": why,
        "attendees": [host.email, meeting.customer.email, *meeting.guests],
        "form_submission": None if by_conversation(meeting) else _form(meeting),
        "booking_page": None,
        "master_page": None,
        "event_type": "",
        "booking_calendar": {
            "id": calendar_id(meeting.service.number),
            "object": "booking_calendar",
            "name": meeting.service.name,
        },
        "payment_information": paid,
        "external_calendar": {
            "type": _CALENDARS[number % len(_CALENDARS)],
            "name": host.email,
            "id": host.email,
            "event_id": f"ev{number}",
        },
        "conversation": conversation(meeting) if by_conversation(meeting) else None,
        "custom_fields": [{"name": name, "value": value} for name, value, _ in _booking_fields(meeting)],
    }


def conversation(meeting: Meeting) -> dict[str, Any]:
    """The conversation in which it was booked, whole."""
    said_at = milliseconds(meeting.created_at)
    questions = [
        {"id": f"INT-{place:08d}", "internal_label": "", "question": question, "value": value}
        for place, question, value in _said(meeting)
    ]
    return {
        "id": conversation_id(meeting.number),
        "object": "conversation",
        "creation_time": said_at,
        "initiated_by": "contact",
        "last_updated_time": said_at,
        "last_interacted_time": said_at,
        "contact": contact(meeting.customer, meeting.created_at, meeting.changed_at),
        "owner": user(meeting.host),
        "status": "closed",
        "bot": {"id": "BOT-00000001", "object": "bot", "name": "Reception"},
        "website": {
            "id": "WEB-00000001",
            "object": "website",
            "name": "Example",
            "url": "https://www.example.com",
        },
        "audience": None,
        "answers": questions,
        "bookings": [booking_id(meeting.number)],
    }


def contact(person: Person, created: datetime, updated: datetime) -> dict[str, Any]:
    """A customer. Every other one has a mobile phone only."""
    mobile = bool(person.number % 2)
    return {
        "object": "contact",
        "id": contact_id(person.number),
        "creation_time": milliseconds(created),
        "last_updated_time": milliseconds(updated),
        "last_interacted_time": None,
        "status": None,
        "email": person.email,
        "first_name": person.first_name,
        "last_name": person.last_name,
        "has_consent": False,
        "phone": None if mobile else person.phone,
        "mobile_phone": person.phone if mobile else None,
        "timezone": person.timezone,
        "custom_fields": [],
    }


def _join_url(meeting: Meeting) -> str:
    """A link, a phone number, or nothing."""
    return (f"https://meet.example.com/{meeting.number}", "+1 202 555 0100, PIN 4711", "", "")[
        meeting.number % 4
    ]


def _said(meeting: Meeting) -> list[tuple[int, str, str]]:
    return [(1, "Full name", meeting.customer.name), (2, "Email", meeting.customer.email)]


def _booking_fields(meeting: Meeting) -> list[tuple[str, Any, str]]:
    """Custom fields of the booking: name, value, and the value as text."""
    return (
        [("seats", 3, "3"), ("topics", ["Prices", "Dates"], '["Prices", "Dates"]')]
        if meeting.number % 7 == 0
        else []
    )


def _expected_answers(meeting: Meeting) -> list[dict[str, str]]:
    said = (
        [(question, value) for _, question, value in _said(meeting)]
        if by_conversation(meeting)
        else meeting.answers
    )
    return [
        {"question": question, "answer": text}
        for question, text in (*said, *((name, text) for name, _, text in _booking_fields(meeting)))
    ]


def _owner(meeting: Meeting) -> Any:
    """Both forms have been seen."""
    return user_id(meeting.host.number) if meeting.number % 2 else user(meeting.host)


def user(host: Person) -> dict[str, Any]:
    """A host as an expanded owner."""
    return {
        "id": user_id(host.number),
        "object": "user",
        "first_name": host.first_name,
        "last_name": host.last_name,
        "status": "active",
    }


def _form(meeting: Meeting) -> dict[str, Any]:
    customer = meeting.customer
    form = {
        "name": customer.name,
        "email": customer.email,
        "phone": customer.phone,
        "mobile_phone": "",
        "note": "",
        "company": "",
    }
    fields = [{"name": name, "value": value} for name, value in meeting.answers]
    return form | {"guests": [*meeting.guests], "custom_fields": fields}


DIALECT = OncehubDialect
