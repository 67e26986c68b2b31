"""Bookeo's webhooks.

https://www.bookeo.com/api/webhooks/
"""

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import orjson

from ingest.simulator.account import SimulatedAccount, Webhook
from ingest.simulator.world import Capabilities, Change, ChangeKind, Meeting, Person, Service
from ingest.vendors.bookeo import sign

_TYPES = {
    ChangeKind.CREATED: "created",
    ChangeKind.MOVED: "updated",
    ChangeKind.CANCELLED: "deleted",
    ChangeKind.NO_SHOW: "updated",
}
# Times have the offset of the account's time zone.
LOCAL = timezone(timedelta(hours=-5))


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
        status = {ChangeKind.CANCELLED: "cancelled", ChangeKind.NO_SHOW: "no_show"}.get(
            meeting.last_change, "confirmed"
        )
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
            "cancelled_by": _canceled_by(meeting),
            "cancelled_at": cut_to_minute(meeting.changed_at) if status == "cancelled" else None,
            "participants": 1 + len(meeting.guests),
            "guests": [*meeting.guests],
            "answers": [{"question": question, "answer": answer} for question, answer in meeting.answers],
        }


def booking_number(number: int) -> str:
    """Return the id of a booking by the meeting's number."""
    return f"2570{number:010d}"


def customer_id(person: Person) -> str:
    """Return the id of a customer."""
    return f"2856{person.number:08d}"


def product_id(service: Service) -> str:
    """Return the id of a service."""
    return f"PROD{service.number:08d}"


def guest_id(meeting: Meeting, position: int) -> str:
    """Return the id of a guest by the position in the list."""
    return f"2857{meeting.number:08d}{position}"


def format_minute(moment: datetime) -> str:
    """Format an instant as local time, cut to the minute."""
    return cut_to_minute(moment).astimezone(LOCAL).isoformat()


def cut_to_minute(moment: datetime) -> datetime:
    """Cut an instant to the minute."""
    return moment.replace(second=0, microsecond=0)


def _canceling_agent(meeting: Meeting) -> str:
    """Return who cancels a meeting: the host in one of three, by name."""
    return meeting.customer.name if meeting.number % 3 else meeting.host.name


def _canceled_by(meeting: Meeting) -> str | None:
    """Return who cancelled; a host with the customer's name cannot be distinguished from the customer."""
    if meeting.last_change is not ChangeKind.CANCELLED:
        return None
    return "customer" if _canceling_agent(meeting) == meeting.customer.name else _canceling_agent(meeting)


def booking(meeting: Meeting) -> dict[str, Any]:
    """Return the booking as webhooks have it."""
    price = {"amount": str(meeting.service.price), "currency": meeting.service.currency}
    zero = {"amount": "0", "currency": meeting.service.currency}
    record = {
        "bookingNumber": booking_number(meeting.number),
        "eventId": f"296PJ9JHM12EB2FFCF43_{meeting.starts_at:%Y-%m-%d}",
        "startTime": format_minute(meeting.starts_at),
        "endTime": format_minute(meeting.ends_at),
        "customerId": customer_id(meeting.customer),
        "customer": customer(meeting.customer),
        "title": meeting.customer.name,
        "participants": {
            "numbers": [{"peopleCategoryId": "Cadults", "number": 1 + len(meeting.guests)}],
            "details": [
                {"personId": "PSELF", "peopleCategoryId": "Cadults", "categoryIndex": 1},
                *_guests(meeting),
            ],
        },
        "canceled": meeting.last_change is ChangeKind.CANCELLED,
        "accepted": True,
        "creationTime": format_minute(meeting.created_at),
        "creationAgent": "Online",
        "productName": meeting.service.name,
        "productId": product_id(meeting.service),
        "price": {
            "totalGross": price,
            "totalNet": price,
            "totalTaxes": zero,
            "totalPaid": zero,
            "taxes": [],
        },
        "options": [
            {"id": f"OPT{position}", "name": name, "value": value}
            for position, (name, value) in enumerate(meeting.answers)
        ],
        "privateEvent": False,
    }
    return record | _changes(meeting)


def _changes(meeting: Meeting) -> dict[str, Any]:
    """Return the fields that are absent until the booking changes."""
    if meeting.last_change is ChangeKind.CREATED:
        return {}
    changed = {"lastChangeTime": format_minute(meeting.changed_at), "lastChangeAgent": meeting.host.name}
    if meeting.last_change is ChangeKind.NO_SHOW:
        return changed | {"noShow": True}
    cancelled = {
        "cancelationTime": format_minute(meeting.changed_at),
        "cancelationAgent": _canceling_agent(meeting),
    }
    return changed | (cancelled if meeting.last_change is ChangeKind.CANCELLED else {})


def _guests(meeting: Meeting) -> list[dict[str, Any]]:
    """Return the guests whom the customer has named."""
    return [
        {
            "personId": guest_id(meeting, position),
            "peopleCategoryId": "Cadults",
            "categoryIndex": position + 2,
            "personDetails": {
                "id": guest_id(meeting, position),
                "customerId": customer_id(meeting.customer),
                "firstName": f"Guest {position + 1}",
                "emailAddress": address,
                "creationTime": format_minute(meeting.created_at),
            },
        }
        for position, address in enumerate(meeting.guests)
    ]


def customer(person: Person) -> dict[str, Any]:
    """Return the customer as bookings have it."""
    return {
        "id": customer_id(person),
        "firstName": person.first_name,
        "lastName": person.last_name,
        "emailAddress": person.email,
        "phoneNumbers": [{"number": person.phone, "type": "mobile"}],
    }
