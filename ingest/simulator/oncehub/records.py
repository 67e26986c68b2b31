"""The records, ids and errors of OnceHub, which webhooks and the REST API share.

https://help.oncehub.com/developers/api/
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any

from starlette.responses import Response

from ingest.simulator.account import format_milliseconds
from ingest.simulator.api import ApiError, json_response
from ingest.simulator.world import ChangeKind, Meeting, Person, Service

Record = dict[str, Any]

STATUSES = {
    ChangeKind.CREATED: "scheduled",
    ChangeKind.MOVED: "rescheduled",
    ChangeKind.CANCELLED: "canceled",
    ChangeKind.COMPLETED: "completed",
    ChangeKind.NO_SHOW: "no_show",
}
LOCATION = "Main office"
_CALENDARS = ("google", "office365oauth", "icloud", "office_365", "exchange", "none")
TEAMS = {1: {"object": "team", "id": "TM-00000001", "name": "Everybody"}}
BOOKING_PAGES = {
    1: {
        "object": "booking_page",
        "id": "BP-00000001",
        "name": "Main office",
        "label": "Main office",
        "active": True,
    }
}
EVENT_TYPES = {1: {"object": "event_type", "id": "ET-00000001", "name": "Any meeting", "description": ""}}
MASTER_PAGES = {
    1: {
        "object": "master_page",
        "id": "MP-00000001",
        "name": "All offices",
        "label": "All offices",
        "active": True,
    }
}


def error(status_code: int, type_: str, message: str, **fields: str) -> Response:
    """Return an error."""
    return json_response({"type": type_, "message": message, **fields}, status_code)


def invalid_request(message: str, param: str | None = None, status_code: int = 400) -> ApiError:
    """Return the exception to raise for an invalid request."""
    fields = {"param": param} if param else {}
    return ApiError(error(status_code, "invalid_request_error", message, **fields))


def parse_id(id_: str, make_id: Callable[[int], str]) -> int | None:
    """Return the number in an id, or None when it is not an id as `make_id` makes it."""
    digits = id_.rpartition("-")[2]
    try:
        return int(digits) if digits.isascii() and make_id(int(digits)) == id_ else None
    except (ValueError, KeyError):
        return None


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
    return STATUSES[meeting.last_change]


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
    host, number, customer = meeting.host, meeting.number, meeting.customer
    form = {
        "name": customer.name,
        "email": customer.email,
        "phone": customer.phone,
        "mobile_phone": "",
        "note": "",
        "company": "",
        "guests": [*meeting.guests],
        "custom_fields": [{"name": name, "value": value} for name, value in meeting.answers],
    }
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
        "customer_timezone": customer.timezone,
        "duration_minutes": meeting.service.minutes,
        # An id or an object, both of which occur.
        "owner": user_id(host.number) if number % 2 else expanded_owner(host),
        "virtual_conferencing": {"join_url": join_url(meeting)},
        "location_description": LOCATION,
        "rescheduled_booking_id": "",
        "cancel_reschedule_url": f"https://book.example.com/change/{number:032x}",
        "cancel_reschedule_information": reason,
        "attendees": [host.email, customer.email, *meeting.guests],
        "form_submission": None if by_conversation(meeting) else form,
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
        "custom_fields": [{"name": name, "value": value} for name, value, _ in booking_fields(meeting)],
    }


def conversation(meeting: Meeting) -> dict[str, Any]:
    """Return the conversation in which the meeting was booked, with all of its objects."""
    created = format_milliseconds(meeting.created_at)
    answers = [
        {"id": f"INT-{number:08d}", "internal_label": "", "question": question, "value": value}
        for number, (question, value) in enumerate(chat_answers(meeting), 1)
    ]
    return {
        "id": conversation_id(meeting.number),
        "object": "conversation",
        "creation_time": created,
        "initiated_by": "contact",
        "last_updated_time": created,
        "last_interacted_time": created,
        "contact": contact_of_conversation(meeting.customer, meeting.created_at, meeting.changed_at),
        "owner": expanded_owner(meeting.host),
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


def contact_of_conversation(person: Person, created: datetime, updated: datetime) -> dict[str, Any]:
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


def join_url(meeting: Meeting) -> str:
    """Return a link, a phone number, or an empty string."""
    return (f"https://meet.example.com/{meeting.number}", "+1 202 555 0100, PIN 4711", "", "")[
        meeting.number % 4
    ]


def chat_answers(meeting: Meeting) -> list[tuple[str, str]]:
    """Return the questions of the conversation in which a meeting was booked, with the customer's answers."""
    return [("Full name", meeting.customer.name), ("Email", meeting.customer.email)]


def booking_fields(meeting: Meeting) -> list[tuple[str, Any, str]]:
    """Return the custom fields of the booking: name, value, and the value as text."""
    if meeting.number % 7:
        return []
    return [("seats", 3, "3"), ("topics", ["Prices", "Dates"], '["Prices", "Dates"]')]


def expanded_owner(host: Person) -> dict[str, Any]:
    """Return a host as an expanded owner."""
    return {
        "id": user_id(host.number),
        "object": "user",
        "first_name": host.first_name,
        "last_name": host.last_name,
        "status": "active",
    }


def record(meeting: Meeting, expanded: AbstractSet[str]) -> Record:
    """Return a booking as webhooks have it, with a few differences.

    Some fields differ, absent values are null, and objects that are not in `expanded` are ids.
    """
    webhook = booking(meeting)
    del webhook["cancel_reschedule_url"]
    customer, host, number = meeting.customer, meeting.host, meeting.number
    chat: Record | str | None = None
    if by_conversation(meeting):
        chat = conversation_id(number)
    if chat and "conversation" in expanded:
        # The objects in an expanded conversation are ids.
        parts = {"contact": contact_id(customer.number), "owner": user_id(host.number)}
        chat = conversation(meeting) | parts | {"bot": "BOT-00000001", "website": "WEB-00000001"}
    # Only the API has the campaign: all five parameters, or None.
    names = ("source", "medium", "campaign", "term", "content")
    return webhook | {
        "owner": user(host) if "owner" in expanded else user_id(host.number),
        "contact": (
            contact(customer, meeting.changed_at) if "contact" in expanded else contact_id(customer.number)
        ),
        "conversation": chat,
        "booking_calendar": webhook["booking_calendar"]["id"],
        "event_type": None,
        "rescheduled_booking_id": None,
        "cancel_reschedule_information": webhook["cancel_reschedule_information"] if meeting.reason else None,
        "ics_url": f"https://book.example.com/{number}.ics",
        "cancel_url": f"https://book.example.com/cancel/{number:032x}",
        "reschedule_url": f"https://book.example.com/reschedule/{number:032x}",
        "utm_params": (
            {name: meeting.campaign.get(f"utm_{name}") for name in names} if meeting.campaign else None
        ),
    }


def user(host: Person) -> Record:
    """Return a host."""
    return expanded_owner(host) | {
        "email": host.email,
        "role_name": "Member",
        "timezone": host.timezone,
        "teams": ["TM-00000001"],
    }


def contact(person: Person, updated: datetime) -> Record:
    """Return a customer."""
    return contact_of_conversation(person, person.known_since, updated)


def calendar(service: Service, host: Person) -> Record:
    """Return a service with its host."""
    return {
        "object": "booking_calendar",
        "id": calendar_id(service.number),
        "name": service.name,
        "subject": service.name,
        "url": f"https://book.example.com/{service.number}",
        "published": True,
        "duration_minutes": service.minutes,
        "host": user_id(host.number),
    }
