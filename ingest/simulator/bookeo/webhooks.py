"""Bookeo's webhooks. https://www.bookeo.com/api/webhooks/"""

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import orjson

from ingest.simulator.dialect import Dialect, Webhook
from ingest.simulator.world import Change, Habits, Kind, Meeting, Person, Service
from ingest.vendors.bookeo import sign

_TYPES = {Kind.CREATED: "created", Kind.MOVED: "updated", Kind.CANCELLED: "deleted", Kind.NO_SHOW: "updated"}
# Times are told in the account's zone, as offsets.
LOCAL = timezone(timedelta(hours=-5))


class BookeoDialect(Dialect):
    """Three webhooks, told apart by their URLs' queries. Times are cut to the minute; message ids end in milliseconds."""

    vendor = "bookeo"
    habits = Habits(replaces_when_moved=False, reports=frozenset({Kind.CANCELLED, Kind.NO_SHOW}))

    def settings(self) -> Mapping[str, Any]:
        return {"vendor": self.vendor, "timezone": "America/Panama"}

    def webhook(self, change: Change) -> Webhook:
        meeting = change.meeting
        body = {
            "itemId": booking_number(meeting.number),
            "timestamp": minute(meeting.changed_at),
            "item": booking(meeting),
        }
        message_id = (
            f"msg{meeting.number:08d}{change.kind[0]}{int(meeting.changed_at.timestamp() * 1000):011x}"
        )
        return Webhook(f"domain=bookings&type={_TYPES[change.kind]}", orjson.dumps(body), message_id)

    def headers(self, webhook: Webhook, at: datetime) -> Mapping[str, str]:
        url = f"{self.url}?{webhook.query}" if webhook.query else self.url
        return sign(self.secret, url, webhook.body, webhook.message_id, at)

    def expected(self, meeting: Meeting) -> Mapping[str, Any]:
        status = {Kind.CANCELLED: "cancelled", Kind.NO_SHOW: "no_show"}.get(meeting.last, "confirmed")
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
            "cancelled_at": _cut(meeting.changed_at) if status == "cancelled" else None,
            "participants": 1 + len(meeting.guests),
            "guests": [*meeting.guests],
            "answers": [{"question": question, "answer": answer} for question, answer in meeting.answers],
        }


def booking_number(number: int) -> str:
    """Of a meeting."""
    return f"2570{number:010d}"


def customer_id(person: Person) -> str:
    """Of a customer."""
    return f"2856{person.number:08d}"


def product_id(service: Service) -> str:
    """Of a service."""
    return f"PROD{service.number:08d}"


def guest_id(meeting: Meeting, place: int) -> str:
    """Of somebody who comes along."""
    return f"2857{meeting.number:08d}{place}"


def minute(moment: datetime) -> str:
    """Local time, cut to the minute."""
    return _cut(moment).astimezone(LOCAL).isoformat()


def _cut(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _agent(meeting: Meeting) -> str:
    """Who cancels: in one of three meetings the host, by name."""
    return meeting.customer.name if meeting.number % 3 else meeting.host.name


def _canceled_by(meeting: Meeting) -> str | None:
    """A host of the customer's name cannot be told from the customer."""
    if meeting.last is not Kind.CANCELLED:
        return None
    return "customer" if _agent(meeting) == meeting.customer.name else _agent(meeting)


def booking(meeting: Meeting) -> dict[str, Any]:
    """As webhooks have it."""
    price = {"amount": str(meeting.service.price), "currency": meeting.service.currency}
    nothing = {"amount": "0", "currency": meeting.service.currency}
    told = {
        "bookingNumber": booking_number(meeting.number),
        "eventId": f"296PJ9JHM12EB2FFCF43_{meeting.starts_at:%Y-%m-%d}",
        "startTime": minute(meeting.starts_at),
        "endTime": minute(meeting.ends_at),
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
        "canceled": meeting.last is Kind.CANCELLED,
        "accepted": True,
        "creationTime": minute(meeting.created_at),
        "creationAgent": "Online",
        "productName": meeting.service.name,
        "productId": product_id(meeting.service),
        "price": {
            "totalGross": price,
            "totalNet": price,
            "totalTaxes": nothing,
            "totalPaid": nothing,
            "taxes": [],
        },
        "options": [
            {"id": f"OPT{place}", "name": name, "value": value}
            for place, (name, value) in enumerate(meeting.answers)
        ],
        "privateEvent": False,
    }
    return told | _later(meeting)


def _later(meeting: Meeting) -> dict[str, Any]:
    """What is absent until something happened."""
    if meeting.last is Kind.CREATED:
        return {}
    changed = {"lastChangeTime": minute(meeting.changed_at), "lastChangeAgent": meeting.host.name}
    if meeting.last is Kind.NO_SHOW:
        return changed | {"noShow": True}
    cancelled = {"cancelationTime": minute(meeting.changed_at), "cancelationAgent": _agent(meeting)}
    return changed | (cancelled if meeting.last is Kind.CANCELLED else {})


def _guests(meeting: Meeting) -> list[dict[str, Any]]:
    """Those who come along, whom the customer has named."""
    return [
        {
            "personId": guest_id(meeting, place),
            "peopleCategoryId": "Cadults",
            "categoryIndex": place + 2,
            "personDetails": {
                "id": guest_id(meeting, place),
                "customerId": customer_id(meeting.customer),
                "firstName": f"Guest {place + 1}",
                "emailAddress": address,
                "creationTime": minute(meeting.created_at),
            },
        }
        for place, address in enumerate(meeting.guests)
    ]


def customer(person: Person) -> dict[str, Any]:
    """As bookings have it."""
    return {
        "id": customer_id(person),
        "firstName": person.first_name,
        "lastName": person.last_name,
        "emailAddress": person.email,
        "phoneNumbers": [{"number": person.phone, "type": "mobile"}],
    }


DIALECT = BookeoDialect
