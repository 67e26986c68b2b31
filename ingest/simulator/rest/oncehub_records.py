"""What OnceHub's REST side tells of each thing. https://help.oncehub.com/developers/api/"""

from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from typing import Any

from ingest.simulator.dialects.oncehub import booking, calendar_id, user_id
from ingest.simulator.dialects.oncehub import user as expanded_owner
from ingest.simulator.world import Meeting, Person, Service

Object = dict[str, Any]

# The world does not say since when it knows a person.
BEGINNING = datetime(2025, 1, 1, tzinfo=UTC)


def record(meeting: Meeting, expanded: AbstractSet[str]) -> Object:
    """As webhooks have it, but for whole seconds, other objects as ids, absence as null, and some fields more and less."""
    webhook = booking(meeting)
    customer, host, number = meeting.customer, meeting.host, meeting.number
    whole = webhook["booking_calendar"]
    return webhook | {
        "creation_time": seconds(meeting.created_at),
        "starting_time": seconds(meeting.starts_at),
        "last_updated_time": seconds(meeting.changed_at),
        "owner": user(host) if "owner" in expanded else user_id(host.number),
        "contact": contact(customer, meeting.changed_at) if "contact" in expanded else contact_id(customer.number),
        "booking_calendar": whole if "booking_calendar" in expanded else whole["id"],
        "event_type": None,
        "rescheduled_booking_id": None,
        "cancel_reschedule_information": webhook["cancel_reschedule_information"] if meeting.reason else None,
        "ics_url": f"https://book.example.com/{number}.ics",
        "cancel_url": f"https://book.example.com/cancel/{number:032x}",
        "reschedule_url": f"https://book.example.com/reschedule/{number:032x}",
        "utm_params": None,
    }


def user(host: Person) -> Object:
    """A host."""
    return expanded_owner(host) | {"email": host.email, "role_name": "Member", "timezone": host.timezone, "teams": ["TM-00000001"]}


def contact_id(number: int) -> str:
    """Of a customer."""
    return f"CNT-{number:08d}"


def known_since(person: Person) -> datetime:
    """In the order of their numbers."""
    return BEGINNING + timedelta(minutes=person.number)


def contact(person: Person, updated: datetime) -> Object:
    """A customer."""
    names = {"first_name": person.first_name, "last_name": person.last_name, "email": person.email}
    times = {"creation_time": seconds(known_since(person)), "last_updated_time": seconds(updated)}
    phones = {"phone": person.phone, "mobile_phone": "", "timezone": person.timezone}
    return {"object": "contact", "id": contact_id(person.number), **names, **phones, **times, "custom_fields": []}


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
BOOKING_PAGES = {1: {"object": "booking_page", "id": "BP-00000001", "name": "Main office", "label": "Main office", "active": True}}
EVENT_TYPES = {1: {"object": "event_type", "id": "ET-00000001", "name": "Any meeting", "description": ""}}
MASTER_PAGES = {1: {"object": "master_page", "id": "MP-00000001", "name": "All offices", "label": "All offices", "active": True}}


def seconds(moment: datetime) -> str:
    """`2026-06-10T06:30:00Z`: whole seconds, where webhooks have milliseconds."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
