"""The records and errors of Calendly, which webhooks and the REST API share.

Every event has one invitee. A no-show changes the invitee only, and the time of change of neither.
https://developer.calendly.com/api-docs/calendly-api
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from starlette.responses import Response

from ingest.simulator.api import ApiError, json_response
from ingest.simulator.world import ChangeKind, Meeting, Person, Service

API = "https://api.calendly.com"
ORGANIZATION = f"{API}/organizations/OR00000000000001"
GROUP = f"{API}/groups/GR00000000000001"
FORM = f"{API}/routing_forms/RF00000000000001"
OWNER = Person(1, "Account", "Owner", "Europe/London")
# The changes that cancel both invitee and event.
ENDED = {ChangeKind.CANCELLED, ChangeKind.REPLACED}
_QUESTION = "5f0c3a1e-7d2b-4c8f-9a6e-000000000001"
_PARAMETERS = ("utm_campaign", "utm_source", "utm_medium", "utm_content", "utm_term", "salesforce_uuid")
_TIMES = {"created_at": "2025-01-07T10:20:30.405060Z", "updated_at": "2025-01-07T10:20:30.405060Z"}


def event_uri(number: int) -> str:
    """Return the URI of a meeting's event."""
    return f"{API}/scheduled_events/EV{number:014d}"


def invitee_uri(number: int) -> str:
    """Return the URI of a meeting's only invitee, which is the booking's id."""
    return f"{event_uri(number)}/invitees/IN{number:014d}"


def user_uri(host: Person) -> str:
    """Return the URI of a host."""
    return f"{API}/users/US{host.number:014d}"


def event_type_uri(service: Service) -> str:
    """Return the URI of a service."""
    return f"{API}/event_types/ET{service.number:014d}"


def format_instant(moment: datetime) -> str:
    """Format an instant as `2026-06-10T06:30:00.000000Z`."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def invitee(meeting: Meeting) -> dict[str, Any]:
    """Return the invitee as webhooks have it, with the event inside."""
    ended = meeting.last_change in ENDED
    payment = {
        "external_id": "ch_1",
        "provider": "stripe",
        "currency": meeting.service.currency,
        "terms": None,
        "successful": True,
    }
    no_show = {
        "uri": f"{API}/invitee_no_shows/{meeting.number}",
        "created_at": format_instant(meeting.changed_at),
    }
    record: dict[str, Any] = {
        "uri": invitee_uri(meeting.number),
        "event": event_uri(meeting.number),
        "email": meeting.customer.email,
        "name": meeting.customer.name,
        "first_name": meeting.customer.first_name if _has_two_names(meeting) else None,
        "last_name": meeting.customer.last_name if _has_two_names(meeting) else None,
        "status": "canceled" if ended else "active",
        "timezone": meeting.customer.timezone,
        "created_at": format_instant(meeting.created_at),
        "updated_at": format_instant(meeting.changed_at if ended else meeting.created_at),
        "rescheduled": meeting.last_change is ChangeKind.REPLACED,
        "old_invitee": invitee_uri(meeting.replaces) if meeting.replaces else None,
        "new_invitee": invitee_uri(meeting.replaced_by) if meeting.replaced_by else None,
        "cancel_url": f"https://calendly.com/cancellations/IN{meeting.number:014d}",
        "reschedule_url": f"https://calendly.com/reschedulings/IN{meeting.number:014d}",
        "text_reminder_number": None if _is_asked_for_phone(meeting) else meeting.customer.phone,
        "questions_and_answers": [
            {"question": question, "answer": answer, "position": position}
            for position, (question, answer) in enumerate(answers(meeting))
        ],
        "tracking": dict.fromkeys(_PARAMETERS) | dict(meeting.campaign),
        "routing_form_submission": None,
        "payment": {**payment, "amount": float(meeting.service.price)} if meeting.service.price else None,
        "no_show": no_show if meeting.last_change is ChangeKind.NO_SHOW else None,
        "reconfirmation": None,
        "scheduling_method": None,
        "invitee_scheduled_by": None,
        "scheduled_event": scheduled_event(meeting),
    }
    return record | ({"cancellation": _cancellation(meeting)} if ended else {})


def scheduled_event(meeting: Meeting) -> dict[str, Any]:
    """Return the event of a meeting, which the API has apart from the invitee."""
    ended, created_at = meeting.last_change in ENDED, format_instant(meeting.created_at)
    host = {"user": user_uri(meeting.host), "user_email": meeting.host.email, "user_name": meeting.host.name}
    event = {
        "uri": event_uri(meeting.number),
        "name": meeting.service.name,
        "status": "canceled" if ended else "active",
        "start_time": format_instant(meeting.starts_at),
        "end_time": format_instant(meeting.ends_at),
        "event_type": event_type_uri(meeting.service),
        "location": location(meeting),
        "invitees_counter": {"total": 1, "active": 0 if ended else 1, "limit": 1},
        # Some events list their host twice, as in a captured payload.
        "event_memberships": [host] * (2 if meeting.number % 7 == 0 else 1),
        "event_guests": [
            {"email": guest, "created_at": created_at, "updated_at": created_at} for guest in meeting.guests
        ],
        "meeting_notes_plain": None,
        "meeting_notes_html": None,
        "created_at": created_at,
        "updated_at": format_instant(meeting.changed_at) if ended else created_at,
    }
    return event | ({"cancellation": _cancellation(meeting)} if ended else {})


def location(meeting: Meeting) -> dict[str, Any]:
    """Return the location: a call by one of two systems, or a call to the customer."""
    conference = {"status": "pushed", "join_url": f"https://meet.example.com/j/{meeting.number}"}
    kinds: tuple[dict[str, Any], ...] = (
        {"type": "zoom", **conference, "data": {}},
        {"type": "google_conference", **conference},
        {"type": "outbound_call", "location": meeting.customer.phone},
    )
    return kinds[meeting.number % len(kinds)]


def answers(meeting: Meeting) -> list[tuple[str, str]]:
    """Return the form's answers, with the customer's number where the form asks for it."""
    if _is_asked_for_phone(meeting):
        return [*meeting.answers, ("Unter welcher Nummer erreichen wir Sie?", meeting.customer.phone)]
    return [*meeting.answers]


def _is_asked_for_phone(meeting: Meeting) -> bool:
    """Say whether a question of the form asks for the number; other forms have a field for text messages."""
    return meeting.number % 2 == 0


def _has_two_names(meeting: Meeting) -> bool:
    """Say whether the event type asks for the first and the last name separately."""
    return meeting.number % 5 == 0


def _cancellation(meeting: Meeting) -> dict[str, Any]:
    return {
        "canceled_by": meeting.customer.name,
        "canceler_type": "invitee",
        "reason": meeting.reason,
        "created_at": format_instant(meeting.changed_at),
    }


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


def error(
    status: int,
    title: str,
    message: str,
    details: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return an error.

    https://developer.calendly.com/api-docs/overview/errors
    """
    return json_response({"title": title, "message": message, "details": list(details)}, status, headers)


def invalid(**problems: str) -> Response:
    """Return the error for invalid parameters, with the problem of each."""
    details = [{"parameter": parameter, "message": message} for parameter, message in problems.items()]
    return error(400, "Invalid Argument", "The supplied parameters are invalid.", details)


def not_found() -> Response:
    """Return the error for an endpoint or a record that does not exist."""
    return error(404, "Resource Not Found", "The server could not find the requested resource.")


def check_owner(fields: Mapping[str, str], *selectors: str) -> None:
    """Check the fields that select an owner: at least one, and all within the token's organization.

    Another user's records need the organization beside the user.
    """
    selected = {name: fields[name] for name in selectors if name in fields}
    if not selected:
        raise ApiError(invalid(**{selectors[0]: f"one of {', '.join(selectors)} is needed"}))
    for name, uri in selected.items():
        if not uri.startswith(f"{API}/{name}s/"):
            raise ApiError(invalid(**{name: "must be the URI of one"}))
    allowed = {
        "organization": ORGANIZATION,
        "group": GROUP,
        "user": selected.get("user") if "organization" in selected else user_uri(OWNER),
    }
    if any(uri != allowed[name] for name, uri in selected.items()):
        raise ApiError(permission_denied())


def permission_denied() -> Response:
    """Return the error for records that the token's user may not access."""
    return error(403, "Permission Denied", "You do not have permission to access this resource.")
