"""Calendly's webhooks.

https://developer.calendly.com/api-docs/calendly-api/webhooks
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from ingest.simulator.account import SimulatedAccount, Webhook
from ingest.simulator.world import Capabilities, Change, ChangeKind, Meeting, Person, Service
from ingest.vendors.calendly import sign

API = "https://api.calendly.com"
_EVENTS = {
    ChangeKind.CREATED: "invitee.created",
    ChangeKind.CANCELLED: "invitee.canceled",
    ChangeKind.REPLACED: "invitee.canceled",
    ChangeKind.NO_SHOW: "invitee_no_show.created",
}
_STATUSES = {
    ChangeKind.CANCELLED: "cancelled",
    ChangeKind.REPLACED: "rescheduled",
    ChangeKind.NO_SHOW: "no_show",
}
_PARAMETERS = ("utm_campaign", "utm_source", "utm_medium", "utm_content", "utm_term", "salesforce_uuid")
# The fields of invitees that the old form of a webhook does not have.
_NEW_FIELDS = (
    "routing_form_submission",
    "payment",
    "no_show",
    "reconfirmation",
    "scheduling_method",
    "invitee_scheduled_by",
)
# The changes that cancel both invitee and event.
ENDED = {ChangeKind.CANCELLED, ChangeKind.REPLACED}


class SimulatedCalendly(SimulatedAccount):
    """A Calendly account: moving a meeting cancels the invitee and makes another.

    A no-show leaves `updated_at` as it was.
    """

    vendor = "calendly"
    capabilities = Capabilities(
        replaces_when_moved=True, reports=frozenset({ChangeKind.CANCELLED, ChangeKind.NO_SHOW})
    )

    def settings(self) -> Mapping[str, Any]:
        return {"vendor": self.vendor}

    def webhook(self, change: Change) -> Webhook:
        meeting = change.meeting
        envelope = {
            "event": _EVENTS[change.kind],
            "created_at": meeting.changed_at.strftime("%Y-%m-%dT%H:%M:%S.000000Z"),
        }
        if self.is_complete(meeting):
            envelope |= {"created_by": f"{API}/users/SUBSCRIBER"}
            return Webhook("", orjson.dumps(envelope | {"payload": invitee(meeting)}))
        return Webhook("", orjson.dumps(envelope | {"payload": _in_old_form(invitee(meeting))}))

    def is_complete(self, meeting: Meeting) -> bool:
        """Say no for a cancellation in the old form.

        That form, captured in 2020, lacks the event and with it the time, the service and the hosts.
        """
        return not (meeting.last_change in ENDED and meeting.number % 6 == 0)

    def headers(self, webhook: Webhook, sent_at: datetime) -> Mapping[str, str]:
        return sign(self.secret, webhook.body, sent_at)

    def expected(self, meeting: Meeting) -> Mapping[str, Any]:
        ended = meeting.last_change in ENDED
        return {
            "booking_id": invitee_uri(meeting.number),
            "group_id": event_uri(meeting.number),
            "status": _STATUSES.get(meeting.last_change, "confirmed"),
            "starts_at": meeting.starts_at,
            "ends_at": meeting.ends_at,
            "timezone": meeting.customer.timezone,
            "created_at": meeting.created_at,
            "service_name": meeting.service.name,
            "staff": [user_uri(meeting.host)],
            "staff_name": meeting.host.name,
            "customer_name": meeting.customer.name,
            "customer_email": meeting.customer.email,
            "customer_phone": meeting.customer.phone,
            "price": meeting.service.price or None,
            "currency": meeting.service.currency if meeting.service.price else None,
            "participants": 1,
            "answers": [{"question": question, "answer": answer} for question, answer in _answers(meeting)],
            "tracking": dict(meeting.campaign) or None,
            "guests": list(meeting.guests),
            "conference_url": _location(meeting).get("join_url"),
            "cancelled_at": meeting.changed_at if ended else None,
            "cancel_reason": meeting.reason if ended else None,
            "cancelled_by": "customer" if ended else None,
            "rescheduled_from": invitee_uri(meeting.replaces) if meeting.replaces else None,
            "rescheduled_to": invitee_uri(meeting.replaced_by) if meeting.replaced_by else None,
        }


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
            for position, (question, answer) in enumerate(_answers(meeting))
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
        "location": _location(meeting),
        "invitees_counter": {"total": 1, "active": 0 if ended else 1, "limit": 1},
        "event_memberships": [host] * (2 if _lists_host_twice(meeting) else 1),
        "event_guests": [
            {"email": guest, "created_at": created_at, "updated_at": created_at} for guest in meeting.guests
        ],
        "meeting_notes_plain": None,
        "meeting_notes_html": None,
        "created_at": created_at,
        "updated_at": format_instant(meeting.changed_at) if ended else created_at,
    }
    return event | ({"cancellation": _cancellation(meeting)} if ended else {})


def _location(meeting: Meeting) -> dict[str, Any]:
    """Return the location: a call by one of two systems, or a call to the customer."""
    conference = {"status": "pushed", "join_url": f"https://meet.example.com/j/{meeting.number}"}
    kinds: tuple[dict[str, Any], ...] = (
        {"type": "zoom", **conference, "data": {}},
        {"type": "google_conference", **conference},
        {"type": "outbound_call", "location": meeting.customer.phone},
    )
    return kinds[meeting.number % len(kinds)]


def _answers(meeting: Meeting) -> list[tuple[str, str]]:
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


def _lists_host_twice(meeting: Meeting) -> bool:
    """Say whether the event lists its host twice, as in a captured payload."""
    return meeting.number % 7 == 0


def _in_old_form(record: dict[str, Any]) -> dict[str, Any]:
    """Return an invitee without the event and the fields that were added later, and without a name."""
    absent = ("first_name", "last_name", "scheduled_event", *_NEW_FIELDS)
    present = {name: value for name, value in record.items() if name not in absent}
    return present | {"name": None, "canceled": True}


def _cancellation(meeting: Meeting) -> dict[str, Any]:
    return {
        "canceled_by": meeting.customer.name,
        "canceler_type": "invitee",
        "reason": meeting.reason,
        "created_at": format_instant(meeting.changed_at),
    }
