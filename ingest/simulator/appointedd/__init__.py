"""The simulated Appointedd, with webhooks of v1.

https://developers.appointedd.com/docs/what-data-is-sent-with-a-webhook
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from ingest.simulator import SimulatedVendor
from ingest.simulator.account import SimulatedAccount, Webhook
from ingest.simulator.appointedd.api import AppointeddApi
from ingest.simulator.appointedd.records import RESOURCE, answers, event_data, object_id
from ingest.simulator.world import Capabilities, Change, ChangeKind, Meeting

_TYPES = {
    ChangeKind.CREATED: "booking_created",
    ChangeKind.MOVED: "booking_updated",
    ChangeKind.CANCELLED: "booking_cancelled",
}
_HEADER = "X-Webhook-Token"


class SimulatedAppointedd(SimulatedAccount):
    """An Appointedd account, whose webhooks are not signed: a header has the secret.

    After a change `updated` has whole seconds only.
    """

    vendor = "appointedd"
    capabilities = Capabilities(replaces_when_moved=False, reports=frozenset({ChangeKind.CANCELLED}))

    def settings(self) -> Mapping[str, Any]:
        return {"vendor": self.vendor, "webhook_header": _HEADER}

    def webhook(self, change: Change) -> Webhook:
        body = {"event_type": _TYPES[change.kind], "event_data": event_data(change.meeting)}
        return Webhook("", orjson.dumps(body))

    def headers(self, webhook: Webhook, sent_at: datetime) -> Mapping[str, str]:
        return {_HEADER: self.secret}

    def expected(self, meeting: Meeting) -> Mapping[str, Any]:
        return {
            "booking_id": object_id(meeting.number),
            "status": "cancelled" if meeting.last_change is ChangeKind.CANCELLED else "confirmed",
            "starts_at": meeting.starts_at,
            "ends_at": meeting.ends_at,
            "timezone": meeting.customer.timezone,
            "service_name": meeting.service.name,
            "staff": [object_id(meeting.host.number, RESOURCE)],
            "staff_name": meeting.host.name,
            "customer_name": meeting.customer.name,
            "customer_email": meeting.customer.email,
            "price": meeting.service.price,
            "currency": None,
            "cancel_reason": None,
            "participants": 1,
            "answers": [
                {
                    "question": label,
                    "answer": str(value).lower() if isinstance(value, bool) else value or None,
                }
                for label, value in answers(meeting)
            ],
            "tracking": None,
            "guests": [],
            "cancelled_at": None,
            "conference_url": None,
        }


VENDOR = SimulatedVendor(SimulatedAppointedd, AppointeddApi)
