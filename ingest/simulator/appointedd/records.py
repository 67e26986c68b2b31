"""What Appointedd's REST sides tell of each thing: v1 in its own JSON, v2 as JSON:API, of the same facts.

https://developers.appointedd.com/reference/booking-entity
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ingest.simulator.appointedd.webhooks import (
    BOOKING,
    CUSTOMER,
    ORGANISATION,
    PARTICIPATION,
    RESOURCE,
    SERVICE,
    object_id,
    questions,
    updated_at,
)
from ingest.simulator.world import Kind, Meeting, Person, Service

Object = dict[str, Any]

# By the numbers in their ids.
Numbered = Mapping[int, Any]

# First digits of ids that webhooks do not have.
CATEGORY = "5a"
GROUP = "5c"
LOCATION = "60"
WEBHOOK = "61"
AVAILABILITY = "62"

# The world does not say since when it knows a person.
_BEGINNING = datetime(2025, 1, 1, tzinfo=UTC)

CATEGORIES: Mapping[int, Object] = {1: {"id": object_id(1, CATEGORY), "name": "Everything"}}
GROUPS: Mapping[int, Object] = {1: {"id": object_id(1, GROUP), "name": "Everybody"}}
_ADDRESS = {
    "house_no": "1",
    "address_1": "Example Street",
    "address_2": "",
    "city": "Exampleton",
    "postcode": "EX1 1EX",
}


@dataclass(frozen=True, slots=True)
class Things:
    """All of one kind, the first digits of their ids, and how one is told."""

    prefix: str
    numbered: Numbered
    write: Callable[[Any], Object]

    def told(self, numbers: Iterable[int]) -> list[Object]:
        """Those of these numbers."""
        return [self.write(self.numbered[number]) for number in numbers]

    def one(self, given: str) -> Object | None:
        """By its id; None when there is none."""
        number = number_of(given, self.prefix)
        return None if number is None or number not in self.numbered else self.write(self.numbered[number])


def number_of(given: str, prefix: str = BOOKING) -> int | None:
    """The number in an id; None when it is no id of this kind."""
    try:
        number = int(given.removeprefix(prefix), 16)
    except ValueError:
        return None
    return number if object_id(number, prefix) == given else None


def customers_of(meetings: Numbered) -> Numbered:
    """Whoever has a booking."""
    return {meeting.customer.number: meeting.customer for meeting in meetings.values()}


def services_of(meetings: Numbered) -> Numbered:
    """Whatever was booked."""
    return {meeting.service.number: meeting.service for meeting in meetings.values()}


def hosts_of(meetings: Numbered) -> Numbered:
    """Whoever was booked."""
    return {meeting.host.number: meeting.host for meeting in meetings.values()}


def status(meeting: Meeting) -> str:
    """Lower-case, where webhooks have a capital."""
    return "cancelled" if meeting.last is Kind.CANCELLED else "confirmed"


def booking(meeting: Meeting) -> Object:
    """Service, resource and customers are ids; nobody's name, and no time, reason or actor of a cancellation."""
    price = float(meeting.service.price)
    return {
        "id": object_id(meeting.number),
        "service": object_id(meeting.service.number, SERVICE),
        "resource": object_id(meeting.host.number, RESOURCE),
        "customers": [_part(meeting, price)],
        "start": _instant(meeting.starts_at),
        "end": _instant(meeting.ends_at),
        "start_buffer": _instant(meeting.starts_at - timedelta(minutes=5)),
        "end_buffer": _instant(meeting.ends_at + timedelta(minutes=5)),
        "price": price,
        "total_spaces": 1,
        "status": status(meeting),
        "updated": _instant(updated_at(meeting)),
        "created": _instant(meeting.created_at),
        "created_source": "appointment_screen",
    }


def _part(meeting: Meeting, price: float) -> Object:
    customer_id, added = (
        object_id(meeting.customer.number, CUSTOMER),
        _instant(meeting.created_at.replace(microsecond=0)),
    )
    return {
        "id": customer_id,
        "customer_id": customer_id,
        "customer_booking_id": object_id(meeting.number, PARTICIPATION),
        "spaces": 1,
        "booking_source": "appointment_screen",
        "timezone": meeting.customer.timezone,
        "paid": False,
        "locale": "en",
        "created": added,
        "added": added,
        "status": "No Status",
        "questions": questions(meeting),
        "total_spaces": 1,
        "total_price": price,
        "price_points": [{"quantity": 1, "price_per_quantity": price, "spaces_per_quantity": 1}],
        "reschedule_url": f"https://reschedule.example.com?token={meeting.number:032x}",
    }


def known_since(person: Person) -> datetime:
    """In the order of their numbers."""
    return _BEGINNING + timedelta(minutes=person.number)


def customer(person: Person) -> Object:
    """What is absent is an empty string."""
    known = _instant(known_since(person))
    profile = {
        "firstname": person.first_name,
        "lastname": person.last_name,
        "mobile": person.phone,
        "phone": "",
        "email": person.email,
    }
    own = {"id": object_id(person.number, CUSTOMER), "tags": [], "profile": profile}
    return {**own, "marketing_opt_in": False, "created": known, "updated": known}


def service(offered: Service) -> Object:
    """What can be booked."""
    kind = {"type": "Hourly", "durations": [offered.minutes]}
    own = {"id": object_id(offered.number, SERVICE), "name": offered.name, "description": ""}
    return {**own, "category_id": object_id(1, CATEGORY), "booking": kind}


def resource(host: Person) -> Object:
    """Staff, as v1 calls them."""
    profile = {"name": host.name, "email": host.email, "phone": host.phone, "address": _ADDRESS}
    return {
        "id": object_id(host.number, RESOURCE),
        "services": [],
        "resource_group_ids": [object_id(1, GROUP)],
        "profile": profile,
    }


def booking_v2(meeting: Meeting) -> Object:
    """Nothing public tells its attributes: v1's facts under v1's names, ids as relationships."""
    whole = booking(meeting)
    related = {
        "service": {"data": {"type": "services", "id": whole.pop("service")}},
        "staff": {"data": {"type": "staff", "id": whole.pop("resource")}},
        "customers": {
            "data": [{"type": "customers", "id": part["customer_id"]} for part in whole.pop("customers")]
        },
        "account": {"data": {"type": "accounts", "id": object_id(1, ORGANISATION)}},
    }
    return jsonapi("bookings", whole) | {"relationships": related}


def customer_v2(person: Person) -> Object:
    """The profile's fields are attributes."""
    whole = customer(person)
    return jsonapi("customers", whole | whole.pop("profile"))


def service_v2(offered: Service) -> Object:
    """What can be booked."""
    return jsonapi("services", service(offered))


def staff_v2(host: Person) -> Object:
    """A host."""
    return jsonapi("staff", {"id": object_id(host.number, RESOURCE), "name": host.name, "email": host.email})


def availability_v2(last: Meeting) -> Object:
    """The host is free in the hour after the last meeting."""
    free = {"start": _instant(last.ends_at), "end": _instant(last.ends_at + timedelta(hours=1))}
    related = {"staff": {"data": {"type": "staff", "id": object_id(last.host.number, RESOURCE)}}}
    return jsonapi("availability", {"id": object_id(last.host.number, AVAILABILITY), **free}) | {
        "relationships": related
    }


def jsonapi(kind: str, whole: Object) -> Object:
    """https://jsonapi.org/format/#document-resource-objects"""
    return {
        "type": kind,
        "id": whole["id"],
        "attributes": {name: value for name, value in whole.items() if name != "id"},
    }


def _instant(moment: datetime) -> str:
    """`2024-02-09T15:00:00.000+00:00`, where webhooks have a `Z`."""
    return moment.isoformat(timespec="milliseconds")
