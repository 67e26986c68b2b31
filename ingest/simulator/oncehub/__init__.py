"""The simulated OnceHub (v2, booking calendars).

https://help.oncehub.com/developers/api/
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from ingest.simulator import SimulatedVendor
from ingest.simulator.account import SimulatedAccount, Webhook, format_milliseconds
from ingest.simulator.api import cut_to_millisecond
from ingest.simulator.oncehub.api import OncehubApi
from ingest.simulator.oncehub.records import (
    LOCATION,
    STATUSES,
    booking,
    booking_fields,
    booking_id,
    by_conversation,
    chat_answers,
    contact_id,
    join_url,
    user_id,
)
from ingest.simulator.world import Capabilities, Change, ChangeKind, Meeting
from ingest.vendors.oncehub import sign

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
            "type": f"booking.{STATUSES[change.kind]}",
            "api_version": "v2",
            "data": booking(meeting),
        }
        return Webhook("", orjson.dumps(envelope))

    def headers(self, webhook: Webhook, sent_at: datetime) -> Mapping[str, str]:
        return sign(self.secret, webhook.body, sent_at)

    def expected(self, meeting: Meeting) -> Mapping[str, Any]:
        ended, link = meeting.last_change is ChangeKind.CANCELLED, join_url(meeting)
        customer = {"customer_id": contact_id(meeting.customer.number)} if by_conversation(meeting) else {}
        answers = [
            *(chat_answers(meeting) if by_conversation(meeting) else meeting.answers),
            *((name, text) for name, _, text in booking_fields(meeting)),
        ]
        return customer | {
            "booking_id": booking_id(meeting.number),
            "status": _EXPECTED_STATUSES.get(meeting.last_change, "confirmed"),
            "starts_at": meeting.starts_at,
            "ends_at": meeting.ends_at,
            "timezone": meeting.customer.timezone,
            "created_at": cut_to_millisecond(meeting.created_at),
            "service_name": meeting.service.name,
            "staff": [user_id(meeting.host.number)],
            "location": link or LOCATION,
            "conference_url": link if link.startswith("https:") else None,
            "customer_name": meeting.customer.name,
            "customer_email": meeting.customer.email,
            "customer_phone": meeting.customer.phone,
            "participants": 1 + len(meeting.guests),
            "guests": [*meeting.guests],
            "answers": [{"question": question, "answer": answer} for question, answer in answers],
            "price": meeting.service.price or None,
            "currency": meeting.service.currency if meeting.service.price else None,
            "cancel_reason": meeting.reason if ended else None,
            "cancelled_by": "customer" if ended else None,
            "rescheduled_from": None,
            "rescheduled_to": None,
        }


VENDOR = SimulatedVendor(SimulatedOncehub, OncehubApi)
