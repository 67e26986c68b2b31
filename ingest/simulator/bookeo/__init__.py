"""The simulated Bookeo.

https://www.bookeo.com/api/webhooks/
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from ingest.simulator import SimulatedVendor
from ingest.simulator.account import SimulatedAccount, Webhook
from ingest.simulator.bookeo.api import BookeoApi
from ingest.simulator.bookeo.records import (
    booking,
    booking_number,
    canceling_agent,
    cut_to_minute,
    format_minute,
)
from ingest.simulator.world import Capabilities, Change, ChangeKind, Meeting
from ingest.vendors.bookeo import sign

_TYPES = {
    ChangeKind.CREATED: "created",
    ChangeKind.MOVED: "updated",
    ChangeKind.CANCELLED: "deleted",
    ChangeKind.NO_SHOW: "updated",
}


class SimulatedBookeo(SimulatedAccount):
    """A Bookeo account: three webhooks that differ in their URLs' queries.

    Times are cut to the minute; message ids end in milliseconds.
    """

    vendor = "bookeo"
    capabilities = Capabilities(
        replaces_when_moved=False, reports=frozenset({ChangeKind.CANCELLED, ChangeKind.NO_SHOW})
    )

    def settings(self) -> Mapping[str, Any]:
        return {"vendor": self.vendor, "timezone": "America/Panama"}

    def webhook(self, change: Change) -> Webhook:
        meeting = change.meeting
        body = {
            "itemId": booking_number(meeting.number),
            "timestamp": format_minute(meeting.changed_at),
            "item": booking(meeting),
        }
        message_id = (
            f"msg{meeting.number:08d}{change.kind[0]}{int(meeting.changed_at.timestamp() * 1000):011x}"
        )
        return Webhook(f"domain=bookings&type={_TYPES[change.kind]}", orjson.dumps(body), message_id)

    def headers(self, webhook: Webhook, sent_at: datetime) -> Mapping[str, str]:
        url = f"{self.url}?{webhook.query}" if webhook.query else self.url
        return sign(self.secret, url, webhook.body, webhook.message_id, sent_at)

    def expected(self, meeting: Meeting) -> Mapping[str, Any]:
        """Return the columns; a host with the customer's name cannot be distinguished from the customer."""
        status = {ChangeKind.CANCELLED: "cancelled", ChangeKind.NO_SHOW: "no_show"}.get(
            meeting.last_change, "confirmed"
        )
        canceled_by = canceling_agent(meeting) if status == "cancelled" else None
        return {
            "booking_id": booking_number(meeting.number),
            "status": status,
            "starts_at": meeting.starts_at,
            "ends_at": meeting.ends_at,
            "timezone": "America/Panama",
            "service_name": meeting.service.name,
            "customer_name": meeting.customer.name,
            "customer_email": meeting.customer.email,
            "customer_phone": meeting.customer.phone,
            "price": meeting.service.price,
            "currency": meeting.service.currency,
            "cancel_reason": None,
            "cancelled_by": "customer" if canceled_by == meeting.customer.name else canceled_by,
            "cancelled_at": cut_to_minute(meeting.changed_at) if status == "cancelled" else None,
            "participants": 1 + len(meeting.guests),
            "guests": [*meeting.guests],
            "answers": [{"question": question, "answer": answer} for question, answer in meeting.answers],
        }


VENDOR = SimulatedVendor(SimulatedBookeo, BookeoApi)
