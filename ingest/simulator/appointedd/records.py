"""The records of Appointedd, in webhooks and in its two REST APIs.

v1 has JSON of its own, and v2 has the same facts as JSON:API.
https://developers.appointedd.com/reference/booking-entity
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ingest.simulator.account import format_milliseconds
from ingest.simulator.world import ChangeKind, Meeting, Person, Service

Record = dict[str, Any]

# Entries of the world, by the numbers in their ids.
ByNumber = Mapping[int, Any]

# The first digits of ids, by kind.
ORGANISATION = "5b"
SERVICE = "5d"
RESOURCE = "5f"
BOOKING = "63"
CUSTOMER = "64"
PARTICIPATION = "65"
QUESTION = "66"
CATEGORY = "5a"
GROUP = "5c"
LOCATION = "60"
WEBHOOK = "61"
AVAILABILITY = "62"


_ADDRESS = {
    "house_no": "1",
    "address_1": "Example Street",
    "address_2": "",
    "city": "Exampleton",
    "postcode": "EX1 1EX",
}


def object_id(number: int, prefix: str = BOOKING) -> str:
    """Return an id of 24 hexadecimal digits, of which the first two are the kind."""
    return f"{prefix}{number:022x}"


CATEGORIES: Mapping[int, Record] = {1: {"id": object_id(1, CATEGORY), "name": "Everything"}}
GROUPS: Mapping[int, Record] = {1: {"id": object_id(1, GROUP), "name": "Everybody"}}


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


def last_meetings_of(meetings: ByNumber) -> ByNumber:
    """Return the last meeting of each host, by the host's number."""
    by_end = sorted(meetings.values(), key=lambda meeting: meeting.ends_at)
    return {meeting.host.number: meeting for meeting in by_end}


def updated_at(meeting: Meeting) -> datetime:
    """Return the time of the latest change, which has whole seconds only unless it is the creation."""
    return (
        meeting.changed_at
        if meeting.last_change is ChangeKind.CREATED
        else meeting.changed_at.replace(microsecond=0)
    )


def questions(meeting: Meeting) -> list[Record]:
    """Return the form's questions with their answers, which webhooks and the API have alike."""
    return [
        {"label": label, "value": value, "id": object_id(position, QUESTION)}
        for position, (label, value) in enumerate(answers(meeting), 1)
    ]


def answers(meeting: Meeting) -> list[tuple[str, str | bool]]:
    """Return the questions and answers: text, "" for no answer, or a boolean for a checkbox."""
    return [*meeting.answers, ("First visit?", meeting.number % 2 == 0), ("Anything else?", "")]


def event_data(meeting: Meeting) -> Record:
    """Return the booking as webhooks have it."""
    host = meeting.host
    return {
        "organisation": {"id": object_id(1, ORGANISATION), "name": "Example Clinic"},
        "booking": {
            "id": object_id(meeting.number),
            "start_time": format_milliseconds(meeting.starts_at),
            "end_time": format_milliseconds(meeting.ends_at),
            "price": float(meeting.service.price),
            "created": format_milliseconds(meeting.created_at),
            "status": "Cancelled" if meeting.last_change is ChangeKind.CANCELLED else "Confirmed",
            "type": "Hourly",
            "timezone": "Europe/London",
            "allow_online_group": False,
            "max_occupancy": 1,
            "last_modified_source": "appointment_screen",
            "updated": format_milliseconds(updated_at(meeting)),
        },
        "participants": [participant(meeting)],
        "bookables": [{"id": object_id(host.number, RESOURCE), "name": host.name, "email": host.email}],
        "service": {"id": object_id(meeting.service.number, SERVICE), "name": meeting.service.name},
    }


def participant(meeting: Meeting) -> Record:
    """Return the customer as webhooks have it, with the participation in the meeting."""
    customer, price = meeting.customer, float(meeting.service.price)
    return {
        "id": object_id(customer.number, CUSTOMER),
        "firstname": customer.first_name,
        "lastname": customer.last_name,
        "timezone": customer.timezone,
        "email": customer.email,
        "marketing_opt_in": False,
        "spaces": 1,
        "booking_status": "No Status",
        "notes": "",
        "questions": questions(meeting),
        "customer_booking_id": object_id(meeting.number, PARTICIPATION),
        "total_price": price,
        "total_spaces": 1,
        "price_points": [{"price_per_quantity": price, "quantity": 1, "spaces_per_quantity": 1}],
        "custom_fields": [],
        "cancellation_url": f"https://book.example.com/cancel/{meeting.number:032x}",
        "reschedule_url": f"https://reschedule.example.com?token={meeting.number:032x}",
    }


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
        "customers": [participation(meeting)],
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


def participation(meeting: Meeting) -> Record:
    """Return the customer of a booking of v1."""
    price = float(meeting.service.price)
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


def customer(person: Person) -> Record:
    """Return a customer; absent values are empty strings."""
    known = _instant(person.known_since)
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
