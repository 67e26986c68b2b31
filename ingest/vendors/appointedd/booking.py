"""The mapping of Appointedd's booking to the canonical one.

Webhooks and API v1 have different names for its fields.
https://developers.appointedd.com/reference/booking-entity
"""

from collections.abc import Sequence
from datetime import datetime

from msgspec import UNSET, Struct
from msgspec.structs import asdict

from ingest.booking import Answer, Booking, BookingStatus
from ingest.times import format_instant
from ingest.vendors.fields import (
    MaybeList,
    MaybeObject,
    Sources,
    as_object,
    as_objects,
    read_any_text,
    read_id,
    read_instant,
    read_maybe_amount,
    read_maybe_count,
    read_maybe_instant,
    read_part,
    read_parts,
    read_text,
    read_word,
    unique,
    untold,
)

# Webhooks say `Confirmed` where REST says `confirmed`. Only the first two statuses are documented.
_STATUSES = {
    "confirmed": BookingStatus.CONFIRMED,
    "canceled": BookingStatus.CANCELLED,
    "pending": BookingStatus.PENDING,
    "completed": BookingStatus.COMPLETED,
    "noshow": BookingStatus.NO_SHOW,
}


_MOST_SPACES = 2**31 - 1


class _Question(Struct):
    """A question of the booking form with its answer, which is text, "" or a boolean."""

    label: object = UNSET
    value: object = UNSET


class _Participant(Struct):
    """A customer's part in a booking."""

    id: object = UNSET
    booking_status: object = UNSET
    firstname: object = UNSET
    lastname: object = UNSET
    email: object = UNSET
    mobile: object = UNSET
    phone: object = UNSET
    timezone: object = UNSET
    spaces: object = UNSET
    total_spaces: object = UNSET
    questions: MaybeList[_Question] = UNSET

    def name(self) -> str | None:
        return " ".join(filter(None, (read_text(self.firstname), read_text(self.lastname)))) or None

    def places(self) -> int:
        """Return the number of places that the customer takes. Raises PayloadError.

        Webhooks in the form of 2017 have `spaces` or nothing.
        """
        counts = (
            read_maybe_count("participants.total_spaces", self.total_spaces, _MOST_SPACES),
            read_maybe_count("participants.spaces", self.spaces, _MOST_SPACES),
        )
        return next((count for count in counts if count is not None), 1)

    def answers(self) -> tuple[Answer, ...]:
        """Return the booking form's questions with this customer's answers."""
        entries = read_parts(_Question, self.questions)
        pairs = ((read_text(entry.label), read_any_text(entry.value)) for entry in entries)
        return tuple(Answer(label, value) for label, value in pairs if label or value)


class _NamedObject(Struct):
    """A service, or a person or thing that is booked, which is one of the `bookables`."""

    id: object = UNSET
    name: object = UNSET


class _Booking(Struct):
    id: object = UNSET
    updated: object = UNSET
    created: object = UNSET
    start_time: object = UNSET
    end_time: object = UNSET
    status: object = UNSET
    price: object = UNSET


class BookingData(Struct):
    """A booking with its participants, bookables and service, in the form of a webhook's `event_data`."""

    booking: _Booking
    participants: MaybeList[_Participant] = UNSET
    bookables: MaybeList[_NamedObject] = UNSET
    service: MaybeObject[_NamedObject] = UNSET

    def __post_init__(self) -> None:
        """Make objects of those that are only ids."""
        self.participants = as_objects(_Participant, self.participants, "id")
        self.bookables = as_objects(_NamedObject, self.bookables, "id")
        self.service = as_object(_NamedObject, self.service, "id")


class _Profile(Struct):
    """What the API has of a customer, which is added to `customers[]` of a booking."""

    firstname: object = UNSET
    lastname: object = UNSET
    email: object = UNSET
    mobile: object = UNSET
    phone: object = UNSET


class _Customer(Struct):
    """A customer's part in a booking, in the form of the API."""

    id: object = UNSET
    customer_id: object = UNSET
    status: object = UNSET
    profile: MaybeObject[_Profile] = UNSET
    timezone: object = UNSET
    spaces: object = UNSET
    total_spaces: object = UNSET
    questions: MaybeList[_Question] = UNSET

    def as_participant(self) -> _Participant:
        """Return the customer in the form of a webhook."""
        profile = read_part(_Profile, self.profile) or _Profile()
        return _Participant(
            id=self.id if self.customer_id is UNSET else self.customer_id,
            booking_status=self.status,
            timezone=self.timezone,
            spaces=self.spaces,
            total_spaces=self.total_spaces,
            questions=self.questions,
            **asdict(profile),
        )


class _ResourceProfile(Struct):
    name: object = UNSET


class _Resource(Struct):
    """A person or thing that is booked, in the form of the API."""

    id: object = UNSET
    profile: MaybeObject[_ResourceProfile] = UNSET

    def as_bookable(self) -> _NamedObject:
        """Return the resource in the form of a webhook."""
        profile = read_part(_ResourceProfile, self.profile) or _ResourceProfile()
        return _NamedObject(self.id, profile.name)


class Record(Struct):
    """A booking of GET /bookings, as `Appointedd.booking_of_record` describes it."""

    id: object = UNSET
    updated: object = UNSET
    created: object = UNSET
    start: object = UNSET
    end: object = UNSET
    status: object = UNSET
    price: object = UNSET
    customers: MaybeList[_Customer] = UNSET
    resource: MaybeObject[_Resource] = UNSET
    service: MaybeObject[_NamedObject] = UNSET

    def as_data(self) -> BookingData:
        """Return the booking in the form of a webhook. Fields that are absent here stay absent."""
        booking = _Booking(
            id=self.id,
            updated=self.updated,
            created=self.created,
            start_time=self.start,
            end_time=self.end,
            status=self.status,
            price=self.price,
        )
        customers = read_parts(_Customer, as_objects(_Customer, self.customers, "id"))
        resource = read_part(_Resource, as_object(_Resource, self.resource, "id"))
        return BookingData(
            booking,
            UNSET if self.customers is UNSET else [customer.as_participant() for customer in customers],
            UNSET if self.resource is UNSET else [resource.as_bookable()] if resource else [],
            self.service,
        )


# The form of 2017 lacks some fields, webhooks have no telephone numbers, and records only have names if these
# were looked up.
_SOURCES: Sources = {
    "status": ("booking.status",),
    "starts_at": ("booking.start_time",),
    "ends_at": ("booking.end_time",),
    "created_at": ("booking.created",),
    "price": ("booking.price",),
    "timezone": ("participants.timezone",),
    "participants": ("participants",),
    "service_id": ("service.id",),
    "service_name": ("service.name",),
    "staff": ("bookables.id",),
    "staff_name": ("bookables.name",),
    "customer_id": ("participants.id",),
    "customer_name": ("participants.firstname", "participants.lastname"),
    "customer_email": ("participants.email",),
    "customer_phone": ("participants.mobile", "participants.phone"),
    "answers": ("participants.questions",),
}


def booking_of_data(data: BookingData, *, cancelled: bool) -> Booking:
    """Map a booking to the canonical one. Raises PayloadError.

    The customer's columns, answers included, are those of the first participant.
    """
    booking = data.booking
    participants = read_parts(_Participant, data.participants)
    customer = participants[0] if participants else _Participant()
    bookables = read_parts(_NamedObject, data.bookables)
    service = read_part(_NamedObject, data.service) or _NamedObject()
    status = BookingStatus.CANCELLED if cancelled else _status(booking, participants)
    places = sum(participant.places() for participant in participants)
    created_at = read_maybe_instant("booking.created", booking.created)
    updated_at = read_instant("booking.updated", booking.updated)
    canonical = Booking(
        booking_id=read_id("booking.id", booking.id),
        version=_version(created_at, updated_at, status),
        status=status,
        starts_at=read_maybe_instant("booking.start_time", booking.start_time),
        ends_at=read_maybe_instant("booking.end_time", booking.end_time),
        timezone=read_text(customer.timezone),  # the booking's own zone is in webhooks only
        created_at=created_at,
        updated_at=updated_at,
        service_id=read_text(service.id),
        service_name=read_text(service.name),
        staff=unique(read_text(bookable.id) for bookable in bookables),
        staff_name=next((read_text(bookable.name) for bookable in bookables), None),
        customer_id=read_text(customer.id),
        customer_name=customer.name(),
        customer_email=read_text(customer.email),
        customer_phone=read_text(customer.mobile) or read_text(customer.phone),
        participants=None if data.participants is UNSET else places,  # 0 where nobody takes part
        price=read_maybe_amount("booking.price", booking.price),  # no payload tells the currency
        answers=customer.answers(),
    )
    canonical.untold = untold(data, canonical, _SOURCES)
    return canonical


def _status(booking: _Booking, participants: Sequence[_Participant]) -> BookingStatus:
    """Return the status of the booking.

    It is `NO_SHOW` where the booking is not cancelled and every participant is marked as `noshow`, a word
    that is not documented.
    """
    status = _STATUSES.get(read_word(booking.status) or "", BookingStatus.UNKNOWN)
    marks = [read_word(participant.booking_status) for participant in participants]
    if status is not BookingStatus.CANCELLED and marks and all(mark == "noshow" for mark in marks):
        return BookingStatus.NO_SHOW
    return status


def _version(created_at: datetime | None, updated_at: datetime, status: BookingStatus) -> str:
    """Return the second of `updated` with the rank of what happened in it: 0 created, 1 changed, 2 cancelled.

    `updated` equals `created`, to the millisecond, until the first change. A change sets it to a whole
    second, and it is not documented whether that is cut or rounded. So a change at 10:00:00.9 of a booking
    created at 10:00:00.742 may look *older* than the creation. If both are cut to the second, a change never
    sorts before what happened earlier. The rank, which can be computed from webhooks and REST alike, orders
    creation, change and cancellation within a second. Two changes within a second tie.
    """
    changed = 0 if updated_at == created_at else 1
    rank = 2 if status is BookingStatus.CANCELLED else changed
    return f"{format_instant(updated_at.replace(microsecond=0))}.{rank}"
