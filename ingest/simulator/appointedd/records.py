"""The records of Appointedd's REST APIs: v1 has JSON of its own, v2 has the same facts as JSON:API.

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
from ingest.simulator.world import ChangeKind, Meeting, Person, Service

Record = dict[str, Any]

# Entries of the world, by the numbers in their ids.
ByNumber = Mapping[int, Any]

# The first digits of ids that are not in webhooks.
CATEGORY = "5a"
GROUP = "5c"
LOCATION = "60"
WEBHOOK = "61"
AVAILABILITY = "62"

# The world does not say when a person was created.
_BEGINNING = datetime(2025, 1, 1, tzinfo=UTC)

CATEGORIES: Mapping[int, Record] = {1: {"id": object_id(1, CATEGORY), "name": "Everything"}}
GROUPS: Mapping[int, Record] = {1: {"id": object_id(1, GROUP), "name": "Everybody"}}
_ADDRESS = {
    "house_no": "1",
    "address_1": "Example Street",
    "address_2": "",
    "city": "Exampleton",
    "postcode": "EX1 1EX",
}


@dataclass(frozen=True, slots=True)
class Collection:
    """The entries of one kind, the first digits of their ids, and the function that makes their records."""

    prefix: str
    entries: ByNumber
    make_record: Callable[[Any], Record]

    def records(self, numbers: Iterable[int]) -> list[Record]:
        """Return the records of these entries."""
        return [self.make_record(self.entries[number]) for number in numbers]

    def find(self, id_: str) -> Record | None:
        """Return the record with this id, or None when there is none."""
        number = parse_id(id_, self.prefix)
        if number is None or number not in self.entries:
            return None
        return self.make_record(self.entries[number])


def parse_id(id_: str, prefix: str = BOOKING) -> int | None:
    """Return the number in an id, or None when it is not an id of this kind."""
    try:
        number = int(id_.removeprefix(prefix), 16)
    except ValueError:
        return None
    return number if object_id(number, prefix) == id_ else None


def customers_of(meetings: ByNumber) -> ByNumber:
    """Return the customers of the meetings."""
    return {meeting.customer.number: meeting.customer for meeting in meetings.values()}


def services_of(meetings: ByNumber) -> ByNumber:
    """Return the services of the meetings."""
    return {meeting.service.number: meeting.service for meeting in meetings.values()}


def hosts_of(meetings: ByNumber) -> ByNumber:
    """Return the hosts of the meetings."""
    return {meeting.host.number: meeting.host for meeting in meetings.values()}


def status(meeting: Meeting) -> str:
    """Return the status in lower case, where webhooks have a capital."""
    return "cancelled" if meeting.last_change is ChangeKind.CANCELLED else "confirmed"


def booking(meeting: Meeting) -> Record:
    """Return a booking of v1.

    Service, resource and customers are ids without names; a cancellation has no time, reason or actor.
    """
    price = float(meeting.service.price)
    return {
        "id": object_id(meeting.number),
        "service": object_id(meeting.service.number, SERVICE),
        "resource": object_id(meeting.host.number, RESOURCE),
        "customers": [_participation(meeting, price)],
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


def _participation(meeting: Meeting, price: float) -> Record:
    customer_id = object_id(meeting.customer.number, CUSTOMER)
    added = _instant(meeting.created_at.replace(microsecond=0))
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
    """Return when a person was created; the order is that of their numbers."""
    return _BEGINNING + timedelta(minutes=person.number)


def customer(person: Person) -> Record:
    """Return a customer; absent values are empty strings."""
    known = _instant(known_since(person))
    profile = {
        "firstname": person.first_name,
        "lastname": person.last_name,
        "mobile": person.phone,
        "phone": "",
        "email": person.email,
    }
    return {
        "id": object_id(person.number, CUSTOMER),
        "tags": [],
        "profile": profile,
        "marketing_opt_in": False,
        "created": known,
        "updated": known,
    }


def service(service: Service) -> Record:
    """Return a service."""
    return {
        "id": object_id(service.number, SERVICE),
        "name": service.name,
        "description": "",
        "category_id": object_id(1, CATEGORY),
        "booking": {"type": "Hourly", "durations": [service.minutes]},
    }


def resource(host: Person) -> Record:
    """Return a host, whom v1 calls a resource."""
    profile = {"name": host.name, "email": host.email, "phone": host.phone, "address": _ADDRESS}
    return {
        "id": object_id(host.number, RESOURCE),
        "services": [],
        "resource_group_ids": [object_id(1, GROUP)],
        "profile": profile,
    }


def booking_v2(meeting: Meeting) -> Record:
    """Return a booking of v2, which is not documented: the fields of v1, with ids as relationships."""
    record = booking(meeting)
    relationships = {
        "service": {"data": {"type": "services", "id": record.pop("service")}},
        "staff": {"data": {"type": "staff", "id": record.pop("resource")}},
        "customers": {
            "data": [{"type": "customers", "id": part["customer_id"]} for part in record.pop("customers")]
        },
        "account": {"data": {"type": "accounts", "id": object_id(1, ORGANISATION)}},
    }
    return resource_object("bookings", record) | {"relationships": relationships}


def customer_v2(person: Person) -> Record:
    """Return a customer of v2, with the fields of the profile as attributes."""
    record = customer(person)
    return resource_object("customers", record | record.pop("profile"))


def service_v2(entry: Service) -> Record:
    """Return a service of v2."""
    return resource_object("services", service(entry))


def staff_v2(host: Person) -> Record:
    """Return a host of v2."""
    return resource_object(
        "staff", {"id": object_id(host.number, RESOURCE), "name": host.name, "email": host.email}
    )


def availability_v2(last: Meeting) -> Record:
    """Return the availability of a host, who is free in the hour after the last meeting."""
    free = {"start": _instant(last.ends_at), "end": _instant(last.ends_at + timedelta(hours=1))}
    staff = {"data": {"type": "staff", "id": object_id(last.host.number, RESOURCE)}}
    record = {"id": object_id(last.host.number, AVAILABILITY), **free}
    return resource_object("availability", record) | {"relationships": {"staff": staff}}


def resource_object(kind: str, record: Record) -> Record:
    """Return a JSON:API resource object.

    https://jsonapi.org/format/#document-resource-objects
    """
    return {
        "type": kind,
        "id": record["id"],
        "attributes": {name: value for name, value in record.items() if name != "id"},
    }


def _instant(moment: datetime) -> str:
    """Format an instant as `2024-02-09T15:00:00.000+00:00`, where webhooks have a `Z`."""
    return moment.isoformat(timespec="milliseconds")
