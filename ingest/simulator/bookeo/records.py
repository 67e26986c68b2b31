"""The records, ids and errors of Bookeo, which webhooks and the REST API share.

https://www.bookeo.com/apiref/
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from starlette.responses import Response

from ingest.simulator.api import json_response
from ingest.simulator.world import ChangeKind, Meeting, Person, Service

# Times have the offset of the account's time zone.
_LOCAL = timezone(timedelta(hours=-5))
LANGUAGES = [
    {"tag": "en-US", "name": "English (US)", "customersDefault": True},
    {"tag": "de-DE", "name": "Deutsch", "customersDefault": False},
]
_CREATED = "2025-01-07T10:20:00-05:00"
_LINKED_EVERY = 4  # every fourth customer books for somebody else too


def error(status: int, message: str, headers: Mapping[str, str] | None = None, **fields: object) -> Response:
    """Return an error with its id.

    https://www.bookeo.com/api/protocol/
    """
    body = {"httpStatus": status, "message": message, "errorId": uuid.uuid4().hex}
    return json_response(body | fields, status, headers)


def not_found() -> Response:
    """Return the error for an endpoint or a record that does not exist."""
    return error(404, "Not found")


def booking_number(number: int) -> str:
    """Return the id of a booking by the meeting's number."""
    return f"2570{number:010d}"


def customer_id(person: Person) -> str:
    """Return the id of a customer."""
    return f"2856{person.number:08d}"


def product_id(service: Service) -> str:
    """Return the id of a service."""
    return f"PROD{service.number:08d}"


def format_minute(moment: datetime) -> str:
    """Format an instant as local time, cut to the minute."""
    return cut_to_minute(moment).astimezone(_LOCAL).isoformat()


def cut_to_minute(moment: datetime) -> datetime:
    """Cut an instant to the minute."""
    return moment.replace(second=0, microsecond=0)


def canceling_agent(meeting: Meeting) -> str:
    """Return who cancels a meeting: the host in one of three, by name."""
    return meeting.customer.name if meeting.number % 3 else meeting.host.name


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
        "customer": booking_customer(meeting.customer),
        "title": meeting.customer.name,
        "participants": {
            "numbers": [{"peopleCategoryId": "Cadults", "number": 1 + len(meeting.guests)}],
            "details": [
                {"personId": "PSELF", "peopleCategoryId": "Cadults", "categoryIndex": 1},
                *guests(meeting),
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
        "cancelationAgent": canceling_agent(meeting),
    }
    return changed | (cancelled if meeting.last_change is ChangeKind.CANCELLED else {})


def guests(meeting: Meeting) -> list[dict[str, Any]]:
    """Return the guests whom the customer has named."""
    return [
        {
            "personId": f"2857{meeting.number:08d}{position}",
            "peopleCategoryId": "Cadults",
            "categoryIndex": position + 2,
            "personDetails": {
                "id": f"2857{meeting.number:08d}{position}",
                "customerId": customer_id(meeting.customer),
                "firstName": f"Guest {position + 1}",
                "emailAddress": address,
                "creationTime": format_minute(meeting.created_at),
            },
        }
        for position, address in enumerate(meeting.guests)
    ]


def booking_customer(person: Person) -> dict[str, Any]:
    """Return the customer as bookings have it."""
    return {
        "id": customer_id(person),
        "firstName": person.first_name,
        "lastName": person.last_name,
        "emailAddress": person.email,
        "phoneNumbers": [{"number": person.phone, "type": "mobile"}],
    }


def api_booking(meeting: Meeting, *, with_customer: bool, with_participants: bool) -> dict[str, Any]:
    """Return a booking with the details that were requested; webhooks always have all of them."""
    record = booking(meeting)
    person, details = record.pop("customer"), record["participants"].pop("details")
    if with_participants:
        record["participants"]["details"] = [{"personDetails": person, **entry} for entry in details]
    return record | ({"customer": person} if with_customer else {})


def customer(meetings: Sequence[Meeting]) -> dict[str, Any]:
    """Return the customer of these meetings, with the fields that bookings lack."""
    changes = [meeting.last_change for meeting in meetings]
    return booking_customer(meetings[0].customer) | {
        "streetAddress": {"countryCode": "US"},
        "creationTime": format_minute(meetings[0].created_at),
        "customFields": [],
        "gender": "unknown",
        "credit": {"amount": "0", "currency": meetings[0].service.currency},
        "languageCode": "en_US",
        "acceptSmsReminders": False,
        "numBookings": len(changes),
        "numCancelations": changes.count(ChangeKind.CANCELLED),
        "numNoShows": changes.count(ChangeKind.NO_SHOW),
        "member": False,
    }


def linked_people(person: Person) -> list[dict[str, Any]]:
    """Return the people for whom a customer books."""
    if person.number % _LINKED_EVERY:
        return []
    return [
        {
            "id": f"2857{person.number:08d}",
            "firstName": "Junior",
            "lastName": person.last_name,
            "customerId": customer_id(person),
            "creationTime": _CREATED,
            "gender": "unknown",
        }
    ]


def payment(meeting: Meeting) -> dict[str, Any]:
    """Return the no-show fee, which is not in the booking's price; only its description names the booking."""
    paid_at = format_minute(meeting.changed_at)
    return {
        "id": f"2858{meeting.number:010d}",
        "creationTime": paid_at,
        "receivedTime": paid_at,
        "reason": "No-show fee",
        "description": f"Booking {booking_number(meeting.number)}",
        "amount": {"amount": str(meeting.service.price), "currency": meeting.service.currency},
        "paymentMethod": "creditCard",
        "customerId": customer_id(meeting.customer),
    }


def product(service: Service) -> dict[str, Any]:
    """Return a service."""
    hours, minutes = divmod(service.minutes, 60)
    return {
        "productId": product_id(service),
        "name": service.name,
        "type": "fixed",
        "duration": {"days": 0, "hours": hours, "minutes": minutes},
        "productCode": f"P{service.number}",
        "bookingLimits": [{"min": 1, "max": 8}],
        "membersOnly": False,
        "prepaidOnly": False,
        "acceptDeny": False,
        "apiBookingsAllowed": True,
        "dropInOnly": False,
    }


def hold(meeting: Meeting, hold_id: str) -> dict[str, Any]:
    """Return a hold, which reserves places for a booking that is not finished."""
    price = booking(meeting)["price"]
    return {
        "id": hold_id,
        "price": price,
        "totalPayable": price["totalGross"],
        "expiration": format_minute(meeting.starts_at),
    }


def resource_types(hosts: Iterable[Person]) -> list[dict[str, Any]]:
    """Return the types of resources, of which there is one: the hosts."""
    staff = [{"id": f"2859{host.number:06d}", "name": host.name} for host in hosts]
    return [{"id": "RTSTAFF", "name": "Staff", "isPublic": True, "resources": staff}]


def api_key_info(account_id: str) -> dict[str, Any]:
    """Return the permissions of the account's key; the account's id stays the same when the key changes."""
    return {
        "accountId": account_id,
        "permissions": ["bookings_r_all", "customers_r_all", "payments_r_all"],
        "creationTime": _CREATED,
    }
