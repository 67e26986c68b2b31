"""What Calendly's REST side tells, record by record. https://developer.calendly.com/api-docs/calendly-api"""

from typing import Any

from ingest.simulator.calendly.webhooks import (
    API,
    event_type_uri,
    instant,
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
ONCE = {"created_at": "2025-01-07T10:20:30.405060Z", "updated_at": "2025-01-07T10:20:30.405060Z"}


def event(meeting: Meeting) -> dict[str, Any]:
    """As webhooks have it inside the invitee, and the calendar's."""
    return scheduled_event(meeting) | {
        "calendar_event": {"kind": "google", "external_id": f"cal{meeting.number:08d}"}
    }


def alone(meeting: Meeting) -> dict[str, Any]:
    """The invitee without the event that webhooks put in."""
    return {name: value for name, value in invitee(meeting).items() if name != "scheduled_event"}


def user(host: Person) -> dict[str, Any]:
    """One of the organization."""
    slug = f"host-{host.number}"
    return {
        "uri": user_uri(host),
        "name": host.name,
        "slug": slug,
        "email": host.email,
        "scheduling_url": f"https://calendly.com/{slug}",
        "timezone": host.timezone,
        "avatar_url": None,
        **ONCE,
    }


def membership(host: Person) -> dict[str, Any]:
    """A user's place in the organization."""
    role = "owner" if host.number == OWNER.number else "user"
    uri = f"{API}/organization_memberships/OM{host.number:014d}"
    return {"uri": uri, "role": role, "user": user(host), "organization": ORGANIZATION, **ONCE}


def event_type(service: Service) -> dict[str, Any]:
    """A service."""
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
        **ONCE,
    }


def group(members: int) -> dict[str, Any]:
    """The only one: everybody."""
    return {"uri": GROUP, "name": "Everybody", "organization": ORGANIZATION, "member_count": members, **ONCE}


def routing_form() -> dict[str, Any]:
    """The only one."""
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
        **ONCE,
    }


def contact(meeting: Meeting) -> dict[str, Any]:
    """The customer of the first meeting they booked."""
    customer, created_at = meeting.customer, instant(meeting.created_at)
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
    """A routing form that led to a meeting. Its submitter's URI has the other host."""
    created_at = instant(meeting.created_at)
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
