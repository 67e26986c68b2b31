"""What Bookeo's REST side tells, record by record. https://www.bookeo.com/apiref/"""

from collections.abc import Iterable, Sequence
from typing import Any

from ingest.simulator.bookeo.webhooks import booking, booking_number, customer_id, minute, product_id
from ingest.simulator.bookeo.webhooks import customer as customer_of_booking
from ingest.simulator.world import Kind, Meeting, Person, Service

LANGUAGES = [
    {"tag": "en-US", "name": "English (US)", "customersDefault": True},
    {"tag": "de-DE", "name": "Deutsch", "customersDefault": False},
]
_ONCE = "2025-01-07T10:20:00-05:00"
_LINKED = 4  # one customer in so many books for somebody else too


def read(meeting: Meeting, *, with_customer: bool, with_participants: bool) -> dict[str, Any]:
    """A booking with what was asked for and no more; webhooks have it always."""
    told = booking(meeting)
    person, details = told.pop("customer"), told["participants"].pop("details")
    if with_participants:
        told["participants"]["details"] = [{"personDetails": person, **one} for one in details]
    return told | ({"customer": person} if with_customer else {})


def customer(meetings: Sequence[Meeting]) -> dict[str, Any]:
    """Who booked these, with what customers have beyond what bookings tell of them."""
    last = [meeting.last for meeting in meetings]
    return customer_of_booking(meetings[0].customer) | {
        "streetAddress": {"countryCode": "US"},
        "creationTime": minute(meetings[0].created_at),
        "customFields": [],
        "gender": "unknown",
        "credit": {"amount": "0", "currency": meetings[0].service.currency},
        "languageCode": "en_US",
        "acceptSmsReminders": False,
        "numBookings": len(last),
        "numCancelations": last.count(Kind.CANCELLED),
        "numNoShows": last.count(Kind.NO_SHOW),
        "member": False,
    }


def linked_people(person: Person) -> list[dict[str, Any]]:
    """Whom the customer books for."""
    if person.number % _LINKED:
        return []
    own = {"customerId": customer_id(person), "creationTime": _ONCE, "gender": "unknown"}
    return [{"id": f"2857{person.number:08d}", "firstName": "Junior", "lastName": person.last_name, **own}]


def payment(meeting: Meeting) -> dict[str, Any]:
    """A fee for not turning up, which is no part of the booking's price. The description alone names the booking."""
    paid_at = minute(meeting.changed_at)
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
    """A service."""
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
    """Places kept for a booking that is not finished."""
    price = booking(meeting)["price"]
    return {
        "id": hold_id,
        "price": price,
        "totalPayable": price["totalGross"],
        "expiration": minute(meeting.starts_at),
    }


def resources(hosts: Iterable[Person]) -> list[dict[str, Any]]:
    """Types of resources: there is one, the hosts'."""
    staff = [{"id": f"2859{host.number:06d}", "name": host.name} for host in hosts]
    return [{"id": "RTSTAFF", "name": "Staff", "isPublic": True, "resources": staff}]


def key(account_id: str) -> dict[str, Any]:
    """What the account's key may do; the account's id stays when the key is another."""
    return {
        "accountId": account_id,
        "permissions": ["bookings_r_all", "customers_r_all", "payments_r_all"],
        "creationTime": _ONCE,
    }
