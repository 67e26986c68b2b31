"""The simulated Calendly.

https://developer.calendly.com/api-docs/calendly-api/webhooks
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from ingest.simulator import SimulatedVendor
from ingest.simulator.account import SimulatedAccount, Webhook
from ingest.simulator.calendly.api import CalendlyApi
from ingest.simulator.calendly.records import (
    API,
    ENDED,
    answers,
    event_uri,
    invitee,
    invitee_uri,
    location,
    user_uri,
)
from ingest.simulator.world import Capabilities, Change, ChangeKind, Meeting
from ingest.vendors.calendly import sign

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
# The old form of a webhook, captured in 2020, lacks these fields of the invitee.
_NEW_FIELDS = {
    "first_name",
    "last_name",
    "scheduled_event",
    "routing_form_submission",
    "payment",
    "no_show",
    "reconfirmation",
    "scheduling_method",
    "invitee_scheduled_by",
}


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
        payload = invitee(change.meeting)
        envelope: dict[str, Any] = {
            "event": _EVENTS[change.kind],
            "created_at": change.meeting.changed_at.strftime("%Y-%m-%dT%H:%M:%S.000000Z"),
        }
        if self.is_complete(change.meeting):
            envelope["created_by"] = f"{API}/users/SUBSCRIBER"
        else:
            payload = {name: value for name, value in payload.items() if name not in _NEW_FIELDS}
            payload |= {"name": None, "canceled": True}
        return Webhook("", orjson.dumps(envelope | {"payload": payload}))

    def is_complete(self, meeting: Meeting) -> bool:
        """Say no for a cancellation in the old form, which lacks the time, the service and the hosts."""
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
            "answers": [{"question": question, "answer": answer} for question, answer in answers(meeting)],
            "tracking": dict(meeting.campaign) or None,
            "guests": list(meeting.guests),
            "conference_url": location(meeting).get("join_url"),
            "cancelled_at": meeting.changed_at if ended else None,
            "cancel_reason": meeting.reason if ended else None,
            "cancelled_by": "customer" if ended else None,
            "rescheduled_from": invitee_uri(meeting.replaces) if meeting.replaces else None,
            "rescheduled_to": invitee_uri(meeting.replaced_by) if meeting.replaced_by else None,
        }


VENDOR = SimulatedVendor(SimulatedCalendly, CalendlyApi)
