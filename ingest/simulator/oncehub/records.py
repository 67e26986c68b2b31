"""What OnceHub's REST side tells of each thing. https://help.oncehub.com/developers/api/"""

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

Object = dict[str, Any]

# The world does not say since when it knows a person.
BEGINNING = datetime(2025, 1, 1, tzinfo=UTC)


def record(meeting: Meeting, expanded: AbstractSet[str]) -> Object:
    """As webhooks have it, but for other objects as ids unless they are expanded, absence as null, and some fields more and less."""
    webhook = booking(meeting)
    del webhook["cancel_reschedule_url"]
    customer, host, number = meeting.customer, meeting.host, meeting.number
    return webhook | {
        "owner": user(host) if "owner" in expanded else user_id(host.number),
        "contact": contact(customer, meeting.changed_at)
        if "contact" in expanded
        else contact_id(customer.number),
        "conversation": _conversation(meeting, whole="conversation" in expanded)
        if by_conversation(meeting)
        else None,
        "booking_calendar": webhook["booking_calendar"]["id"],
        "event_type": None,
        "rescheduled_booking_id": None,
        "cancel_reschedule_information": webhook["cancel_reschedule_information"] if meeting.reason else None,
        "ics_url": f"https://book.example.com/{number}.ics",
        "cancel_url": f"https://book.example.com/cancel/{number:032x}",
        "reschedule_url": f"https://book.example.com/reschedule/{number:032x}",
        "utm_params": utm_params(meeting),
    }


def utm_params(meeting: Meeting) -> Object | None:
    """The campaign, which REST alone tells; all five are there, or none."""
    names = ("source", "medium", "campaign", "term", "content")
    return {name: meeting.campaign.get(f"utm_{name}") for name in names} if meeting.campaign else None


def _conversation(meeting: Meeting, *, whole: bool) -> Object | str:
    """What is in an expanded conversation is not expanded."""
    customer, host = contact_id(meeting.customer.number), user_id(meeting.host.number)
    parts = {"contact": customer, "owner": host, "bot": "BOT-00000001", "website": "WEB-00000001"}
    return conversation(meeting) | parts if whole else conversation_id(meeting.number)


def user(host: Person) -> Object:
    """A host."""
    return expanded_owner(host) | {
        "email": host.email,
        "role_name": "Member",
        "timezone": host.timezone,
        "teams": ["TM-00000001"],
    }


def known_since(person: Person) -> datetime:
    """In the order of their numbers."""
    return BEGINNING + timedelta(minutes=person.number)


def contact(person: Person, updated: datetime) -> Object:
    """A customer."""
    return contact_of_conversation(person, known_since(person), updated)


def calendar(service: Service, host: Person) -> Object:
    """A service, and who holds it."""
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
