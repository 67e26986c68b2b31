"""OnceHub's webhooks (v2, booking calendars).

https://help.oncehub.com/developers/api/
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from ingest.simulator.account import SimulatedAccount, Webhook, format_milliseconds
from ingest.simulator.world import Capabilities, Change, ChangeKind, Meeting, Person
from ingest.vendors.oncehub import sign

_STATUSES = {
    ChangeKind.CREATED: "scheduled",
    ChangeKind.MOVED: "rescheduled",
    ChangeKind.CANCELLED: "canceled",
    ChangeKind.COMPLETED: "completed",
    ChangeKind.NO_SHOW: "no_show",
}
_CALENDARS = ("google", "office365oauth", "icloud", "office_365", "exchange", "none")
_LOCATION = "Main office"
_EXPECTED_STATUSES = {
    ChangeKind.CANCELLED: "cancelled",
    ChangeKind.COMPLETED: "completed",
    ChangeKind.NO_SHOW: "no_show",
}


class SimulatedOncehub(SimulatedAccount):
    """An OnceHub account: a meeting that is moved keeps its id and stays in status `rescheduled`.

    Owners are ids or whole objects. One meeting in three is booked in a conversation, which has the customer
    in place of the form.
    """

    vendor = "oncehub"
    capabilities = Capabilities(
        replaces_when_moved=False,
        reports=frozenset({ChangeKind.CANCELLED, ChangeKind.COMPLETED, ChangeKind.NO_SHOW}),
    )

    def settings(self) -> Mapping[str, Any]:
        return {"vendor": self.vendor}

    def webhook(self, change: Change) -> Webhook:
        meeting = change.meeting
        milliseconds = int(meeting.changed_at.timestamp() * 1000)
        envelope = {
            "id": f"EVNT-{meeting.number:08d}{change.kind.upper()}{milliseconds:X}",
            "object": "event",
            "creation_time": format_milliseconds(meeting.changed_at),
            "type": f"booking.{_STATUSES[change.kind]}",
            "api_version": "v2",
            "data": booking(meeting),
        }
        return Webhook("", orjson.dumps(envelope))

    def headers(self, webhook: Webhook, sent_at: datetime) -> Mapping[str, str]:
        return sign(self.secret, webhook.body, sent_at)

    def expected(self, meeting: Meeting) -> Mapping[str, Any]:
        ended, link = meeting.last_change is ChangeKind.CANCELLED, _join_url(meeting)
        customer = {"customer_id": contact_id(meeting.customer.number)} if by_conversation(meeting) else {}
        return customer | {
            "booking_id": booking_id(meeting.number),
            "status": _EXPECTED_STATUSES.get(meeting.last_change, "confirmed"),
            "starts_at": meeting.starts_at,
            "ends_at": meeting.ends_at,
            "timezone": meeting.customer.timezone,
            "created_at": meeting.created_at.replace(
                microsecond=meeting.created_at.microsecond // 1000 * 1000
            ),
            "service_name": meeting.service.name,
            "staff": [user_id(meeting.host.number)],
            "location": link or _LOCATION,
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
    """Return the id of a booking by the meeting's number."""
    return f"BKNG-{number:012d}"


def user_id(number: int) -> str:
    """Return the id of a host."""
    return f"USR-{number:08d}"


def calendar_id(number: int) -> str:
    """Return the id of a service."""
    return f"BKC-{number:08d}"


def contact_id(number: int) -> str:
    """Return the id of a customer."""
    return f"CTC-{number:08d}"


def conversation_id(number: int) -> str:
    """Return the id of the conversation in which a meeting was booked."""
    return f"CVR-{number:08d}"


def by_conversation(meeting: Meeting) -> bool:
    """Say whether the meeting was booked with a chatbot, and so has no form and no guests."""
    return not meeting.guests


def status(meeting: Meeting) -> str:
    """Return OnceHub's word for the meeting's latest change."""
    return _STATUSES[meeting.last_change]


def booking(meeting: Meeting) -> dict[str, Any]:
    """Return the booking as webhooks have it."""
    cents = int(meeting.service.price * 100)
    payment = {
        "amount_charged": cents,
        "currency": meeting.service.currency,
        "transaction_id": f"ch_{meeting.number}",
    }
    reason = {
        "reason": meeting.reason or "",
        "actioned_by": "customer" if meeting.reason else "",
        "user_id": "",
    }
    host, number = meeting.host, meeting.number
    return {
        "object": "booking",
        "id": booking_id(number),
        "tracking_id": f"TR-{number}",
        "subject": meeting.service.name,
        "status": status(meeting),
        "in_trash": False,
        "creation_time": format_milliseconds(meeting.created_at),
        "starting_time": format_milliseconds(meeting.starts_at),
        "last_updated_time": format_milliseconds(meeting.changed_at),
        "customer_timezone": meeting.customer.timezone,
        "duration_minutes": meeting.service.minutes,
        "owner": _owner(meeting),
        "virtual_conferencing": {"join_url": _join_url(meeting)},
        "location_description": _LOCATION,
        "rescheduled_booking_id": "",
        "cancel_reschedule_url": f"https://book.example.com/change/{number:032x}",
        "cancel_reschedule_information": reason,
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
        "payment_information": payment if cents else None,
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
    """Return the conversation in which the meeting was booked, with all of its objects."""
    created = format_milliseconds(meeting.created_at)
    answers = [
        {"id": f"INT-{number:08d}", "internal_label": "", "question": question, "value": value}
        for number, (question, value) in enumerate(_chat_answers(meeting), 1)
    ]
    return {
        "id": conversation_id(meeting.number),
        "object": "conversation",
        "creation_time": created,
        "initiated_by": "contact",
        "last_updated_time": created,
        "last_interacted_time": created,
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
        "answers": answers,
        "bookings": [booking_id(meeting.number)],
    }


def contact(person: Person, created: datetime, updated: datetime) -> dict[str, Any]:
    """Return a customer; every other one has a mobile phone only."""
    mobile = bool(person.number % 2)
    return {
        "object": "contact",
        "id": contact_id(person.number),
        "creation_time": format_milliseconds(created),
        "last_updated_time": format_milliseconds(updated),
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
    """Return a link, a phone number, or an empty string."""
    return (f"https://meet.example.com/{meeting.number}", "+1 202 555 0100, PIN 4711", "", "")[
        meeting.number % 4
    ]


def _chat_answers(meeting: Meeting) -> list[tuple[str, str]]:
    return [("Full name", meeting.customer.name), ("Email", meeting.customer.email)]


def _booking_fields(meeting: Meeting) -> list[tuple[str, Any, str]]:
    """Return the custom fields of the booking: name, value, and the value as text."""
    if meeting.number % 7:
        return []
    return [("seats", 3, "3"), ("topics", ["Prices", "Dates"], '["Prices", "Dates"]')]


def _expected_answers(meeting: Meeting) -> list[dict[str, str]]:
    answers = _chat_answers(meeting) if by_conversation(meeting) else meeting.answers
    fields = [(name, text) for name, _, text in _booking_fields(meeting)]
    return [{"question": question, "answer": text} for question, text in (*answers, *fields)]


def _owner(meeting: Meeting) -> Any:
    """Return the owner as an id or as an object, both of which occur."""
    return user_id(meeting.host.number) if meeting.number % 2 else user(meeting.host)


def user(host: Person) -> dict[str, Any]:
    """Return a host as an expanded owner."""
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
