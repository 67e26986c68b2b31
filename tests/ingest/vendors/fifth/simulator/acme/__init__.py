"""The simulated Acme, as the smallest example of a simulated vendor.

It only has webhooks: a vendor with a REST API has a class for it too, and passes it to `SimulatedVendor`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from ingest.signing import timestamped_header
from ingest.simulator import SimulatedVendor
from ingest.simulator.account import SimulatedAccount, Webhook
from ingest.simulator.world import Capabilities, Change, ChangeKind, Meeting


class SimulatedAcme(SimulatedAccount):
    """An Acme account: a meeting that is moved keeps its id, and nothing is sent once it was held."""

    vendor = "acme"
    capabilities = Capabilities(replaces_when_moved=False, reports=frozenset({ChangeKind.CANCELLED}))

    def settings(self) -> Mapping[str, Any]:
        return {"vendor": self.vendor}

    def webhook(self, change: Change) -> Webhook:
        meeting = change.meeting
        booking = {
            "id": f"B-{meeting.number}",
            "status": "canceled" if meeting.last_change is ChangeKind.CANCELLED else "booked",
            "updated_at": meeting.changed_at,
            "starts_at": meeting.starts_at,
            "email": meeting.customer.email,
        }
        event_id = f"evt-{meeting.number}-{meeting.changed_at:%H%M%S%f}-{change.kind}"
        return Webhook(
            "", orjson.dumps({"id": event_id, "type": f"booking.{change.kind}", "booking": booking})
        )

    def headers(self, webhook: Webhook, sent_at: datetime) -> Mapping[str, str]:
        return {"Acme-Signature": timestamped_header(self.secret, "v1", webhook.body, sent_at)}

    def expected(self, meeting: Meeting) -> Mapping[str, Any]:
        return {
            "booking_id": f"B-{meeting.number}",
            "status": "cancelled" if meeting.last_change is ChangeKind.CANCELLED else "confirmed",
            "starts_at": meeting.starts_at,
            "ends_at": None,
            "service_name": None,
            "customer_name": None,
            "customer_email": meeting.customer.email,
            "price": None,
        }


VENDOR = SimulatedVendor(SimulatedAcme)
