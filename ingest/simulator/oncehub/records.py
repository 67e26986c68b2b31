"""The records of OnceHub's REST API.

https://help.oncehub.com/developers/api/
"""

from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from typing import Any

from ingest.simulator.oncehub.webhooks import (
    booking,
    by_conversation,
    calendar_id,
    contact_id,
    conversation,
    conversation_id,
    user_id,
)
from ingest.simulator.oncehub.webhooks import contact as contact_of_conversation
from ingest.simulator.oncehub.webhooks import user as expanded_owner
from ingest.simulator.world import Meeting, Person, Service

Record = dict[str, Any]

# The world does not say when a person was created.
_BEGINNING = datetime(2025, 1, 1, tzinfo=UTC)


def record(meeting: Meeting, expanded: AbstractSet[str]) -> Record:
    """Return a booking as webhooks have it, with a few differences.

    Some fields differ, absent values are null, and objects that are not in `expanded` are ids.
    """
    webhook = booking(meeting)
    del webhook["cancel_reschedule_url"]
    customer, host, number = meeting.customer, meeting.host, meeting.number
    return webhook | {
        "owner": user(host) if "owner" in expanded else user_id(host.number),
        "contact": (
            contact(customer, meeting.changed_at) if "contact" in expanded else contact_id(customer.number)
        ),
        "conversation": _conversation(meeting, expanded),
        "booking_calendar": webhook["booking_calendar"]["id"],
        "event_type": None,
        "rescheduled_booking_id": None,
        "cancel_reschedule_information": webhook["cancel_reschedule_information"] if meeting.reason else None,
        "ics_url": f"https://book.example.com/{number}.ics",
        "cancel_url": f"https://book.example.com/cancel/{number:032x}",
        "reschedule_url": f"https://book.example.com/reschedule/{number:032x}",
        "utm_params": utm_params(meeting),
    }


def utm_params(meeting: Meeting) -> Record | None:
    """Return the campaign, which only the API has: all five parameters, or None."""
    names = ("source", "medium", "campaign", "term", "content")
    return {name: meeting.campaign.get(f"utm_{name}") for name in names} if meeting.campaign else None


def _conversation(meeting: Meeting, expanded: AbstractSet[str]) -> Record | str | None:
    """Return the conversation or its id; the objects in an expanded conversation are ids."""
    if not by_conversation(meeting):
        return None
    if "conversation" not in expanded:
        return conversation_id(meeting.number)
    customer, host = contact_id(meeting.customer.number), user_id(meeting.host.number)
    parts = {"contact": customer, "owner": host, "bot": "BOT-00000001", "website": "WEB-00000001"}
    return conversation(meeting) | parts


def user(host: Person) -> Record:
    """Return a host."""
    return expanded_owner(host) | {
        "email": host.email,
        "role_name": "Member",
        "timezone": host.timezone,
        "teams": ["TM-00000001"],
    }


def known_since(person: Person) -> datetime:
    """Return when a person was created; the order is that of their numbers."""
    return _BEGINNING + timedelta(minutes=person.number)


def contact(person: Person, updated: datetime) -> Record:
    """Return a customer."""
    return contact_of_conversation(person, known_since(person), updated)


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
