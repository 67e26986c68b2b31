"""The records of Calendly's REST API.

https://developer.calendly.com/api-docs/calendly-api
"""

from typing import Any

from ingest.simulator.calendly.webhooks import (
    API,
    event_type_uri,
    format_instant,
    invitee,
    invitee_uri,
    scheduled_event,
    user_uri,
)
from ingest.simulator.world import Meeting, Person, Service

ORGANIZATION = f"{API}/organizations/OR00000000000001"
GROUP = f"{API}/groups/GR00000000000001"
_QUESTION = "5f0c3a1e-7d2b-4c8f-9a6e-000000000001"
FORM = f"{API}/routing_forms/RF00000000000001"
OWNER = Person(1, "Account", "Owner", "Europe/London")
_TIMES = {"created_at": "2025-01-07T10:20:30.405060Z", "updated_at": "2025-01-07T10:20:30.405060Z"}


def event(meeting: Meeting) -> dict[str, Any]:
    """Return an event as webhooks have it inside the invitee, with the calendar's event."""
    return scheduled_event(meeting) | {
        "calendar_event": {"kind": "google", "external_id": f"cal{meeting.number:08d}"}
    }


def invitee_record(meeting: Meeting) -> dict[str, Any]:
    """Return the invitee without the event that webhooks put into it."""
    return {name: value for name, value in invitee(meeting).items() if name != "scheduled_event"}


def user(host: Person) -> dict[str, Any]:
    """Return a user of the organization."""
    slug = f"host-{host.number}"
    return {
        "uri": user_uri(host),
        "name": host.name,
        "slug": slug,
        "email": host.email,
        "scheduling_url": f"https://calendly.com/{slug}",
        "timezone": host.timezone,
        "avatar_url": None,
        **_TIMES,
    }


def membership(host: Person) -> dict[str, Any]:
    """Return a user's membership of the organization."""
    role = "owner" if host.number == OWNER.number else "user"
    uri = f"{API}/organization_memberships/OM{host.number:014d}"
    return {"uri": uri, "role": role, "user": user(host), "organization": ORGANIZATION, **_TIMES}


def event_type(service: Service) -> dict[str, Any]:
    """Return a service."""
    slug = service.name.lower().replace(" ", "-")
    return {
        "uri": event_type_uri(service),
        "name": service.name,
        "active": True,
        "slug": slug,
        "scheduling_url": f"https://calendly.com/example/{slug}",
        "duration": service.minutes,
        "kind": "solo",
        "pooling_type": None,
        "type": "StandardEventType",
        "color": "#0088cc",
        "internal_note": None,
        "description_plain": None,
        "description_html": None,
        "profile": {"type": "User", "name": OWNER.name, "owner": user_uri(OWNER)},
        "secret": False,
        "booking_method": "instant",
        "custom_questions": [],
        "deleted_at": None,
        "admin_managed": False,
        "is_paid": bool(service.price),
        **_TIMES,
    }


def group(members: int) -> dict[str, Any]:
    """Return the only group, of which everybody is a member."""
    return {
        "uri": GROUP,
        "name": "Everybody",
        "organization": ORGANIZATION,
        "member_count": members,
        **_TIMES,
    }


def routing_form() -> dict[str, Any]:
    """Return the only routing form."""
    question = {
        "uuid": _QUESTION,
        "name": "What is it about?",
        "type": "text",
        "required": True,
        "answer_choices": None,
    }
    return {
        "uri": FORM,
        "name": "Where to?",
        "status": "published",
        "organization": ORGANIZATION,
        "questions": [question],
        **_TIMES,
    }


def contact(meeting: Meeting) -> dict[str, Any]:
    """Return the customer of the first meeting that the customer booked."""
    customer, created_at = meeting.customer, format_instant(meeting.created_at)
    return {
        "uri": f"{API}/contacts/CO{customer.number:014d}",
        "name": customer.name,
        "email": customer.email,
        "phone_number": customer.phone,
        "timezone": customer.timezone,
        "created_at": created_at,
        "updated_at": created_at,
    }


def submission(meeting: Meeting) -> dict[str, Any]:
    """Return the submission of the routing form before a meeting; its submitter's URI has another host."""
    created_at = format_instant(meeting.created_at)
    return {
        "uri": f"{API}/routing_form_submissions/RS{meeting.number:014d}",
        "routing_form": FORM,
        "questions_and_answers": [
            {"question_uuid": _QUESTION, "question": "What is it about?", "answer": meeting.service.name}
        ],
        "tracking": invitee(meeting)["tracking"],
        "result": {"type": "event_type", "value": event_type_uri(meeting.service)},
        "submitter": invitee_uri(meeting.number).replace(API, "https://calendly.com"),
        "submitter_type": "Invitee",
        "created_at": created_at,
        "updated_at": created_at,
    }
