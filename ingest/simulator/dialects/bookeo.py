"""Bookeo's webhooks. https://www.bookeo.com/api/webhooks/"""

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import orjson

from ingest.simulator.dialect import Dialect, Webhook
from ingest.simulator.world import Change, Habits, Kind, Meeting
from ingest.vendors.bookeo import sign

_TYPES = {Kind.CREATED: "created", Kind.MOVED: "updated", Kind.CANCELLED: "deleted", Kind.NO_SHOW: "updated"}
# Times are told in the account's zone, as offsets.
_LOCAL = timezone(timedelta(hours=-5))


class BookeoDialect(Dialect):
    """Three webhooks, told apart by their URLs' queries. Times are cut to the minute; message ids end in milliseconds."""

    vendor = "bookeo"
    habits = Habits(replaces_when_moved=False, reports=frozenset({Kind.CANCELLED, Kind.NO_SHOW}))

    def settings(self) -> Mapping[str, Any]:
        return {"vendor": self.vendor, "timezone": "America/Panama"}

    def webhook(self, change: Change) -> Webhook:
        meeting = change.meeting
        body = {"itemId": _id(meeting.number), "timestamp": _minute(meeting.changed_at), "item": _item(meeting)}
        message_id = f"msg{meeting.number:08d}{change.kind[0]}{int(meeting.changed_at.timestamp() * 1000):011x}"
        return Webhook(f"domain=bookings&type={_TYPES[change.kind]}", orjson.dumps(body), message_id)

    def headers(self, webhook: Webhook, at: datetime) -> Mapping[str, str]:
        return sign(self.secret, f"{self.url}?{webhook.query}", webhook.body, webhook.message_id, at)

    def expected(self, meeting: Meeting) -> Mapping[str, Any]:
        status = {Kind.CANCELLED: "cancelled", Kind.NO_SHOW: "no_show"}.get(meeting.last, "confirmed")
        return {
            "booking_id": _id(meeting.number),
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
            "participants": 1 + meeting.number % 4,
        }


def _id(number: int) -> str:
    return f"2570{number:010d}"


def _minute(moment: datetime) -> str:
    return moment.astimezone(_LOCAL).replace(second=0, microsecond=0).isoformat()


def _item(meeting: Meeting) -> dict[str, Any]:
    customer = f"2856{meeting.customer.number:08d}"
    price = {"amount": str(meeting.service.price), "currency": meeting.service.currency}
    nothing = {"amount": "0", "currency": meeting.service.currency}
    item = {
        "bookingNumber": _id(meeting.number),
        "eventId": f"296PJ9JHM12EB2FFCF43_{meeting.starts_at:%Y-%m-%d}",
        "startTime": _minute(meeting.starts_at),
        "endTime": _minute(meeting.ends_at),
        "customerId": customer,
        "customer": _customer(meeting, customer),
        "title": meeting.customer.name,
        "participants": {
            "numbers": [{"peopleCategoryId": "Cadults", "number": 1 + meeting.number % 4}],
            "details": [{"personId": "PSELF", "peopleCategoryId": "Cadults", "categoryIndex": 1}],
        },
        "canceled": meeting.last is Kind.CANCELLED,
        "accepted": True,
        "creationTime": _minute(meeting.created_at),
        "creationAgent": "Online",
        "productName": meeting.service.name,
        "productId": f"PROD{meeting.service.number:08d}",
        "price": {"totalGross": price, "totalNet": price, "totalTaxes": nothing, "totalPaid": nothing, "taxes": []},
        "options": [],
        "privateEvent": False,
    }
    return item | _later(meeting)


def _later(meeting: Meeting) -> dict[str, Any]:
    """What is absent until something happened."""
    if meeting.last is Kind.CREATED:
        return {}
    changed = {"lastChangeTime": _minute(meeting.changed_at), "lastChangeAgent": meeting.host.name}
    if meeting.last is Kind.NO_SHOW:
        return changed | {"noShow": True}
    cancelled = {"cancelationTime": _minute(meeting.changed_at), "cancelationAgent": meeting.customer.name}
    return changed | (cancelled if meeting.last is Kind.CANCELLED else {})


def _customer(meeting: Meeting, number: str) -> dict[str, Any]:
    return {
        "id": number,
        "firstName": meeting.customer.first_name,
        "lastName": meeting.customer.last_name,
        "emailAddress": meeting.customer.email,
        "phoneNumbers": [{"number": meeting.customer.phone, "type": "mobile"}],
    }


DIALECT = BookeoDialect
