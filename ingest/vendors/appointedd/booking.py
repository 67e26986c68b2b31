"""The mapping of Appointedd's booking to the canonical one.

Webhooks and API v1 have different names for its fields.
https://developers.appointedd.com/reference/booking-entity
"""

from typing import Annotated

from pydantic import AliasChoices, AliasPath, Field

from ingest.booking import Answer, Booking, BookingStatus
from ingest.times import format_instant
from ingest.vendors.fields import (
    ABSENT,
    OBJECTS,
    REFERENCE,
    AnyText,
    Id,
    Instant,
    MaybeAmount,
    MaybeInstant,
    Payload,
    Sources,
    Text,
    Word,
    objects_or,
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


def _either(*paths: str) -> object:
    """Return a field that has one name in webhooks and another in REST."""
    return Field(validation_alias=AliasChoices(*(AliasPath(*path.split(".")) for path in paths)))


_Spaces = Annotated[int, Field(ge=0, lt=2**31)]


class _Question(Payload):
    """A question of the booking form with its answer, which is text, "" or a boolean."""

    label: Text = None
    value: AnyText = None


class _Participant(Payload):
    """A customer's part in a booking.

    It is `participants[]` of a webhook, or `customers[]` of REST with the `profile` added.
    """

    customer_id: Annotated[Text, _either("customer_id", "id")] = None
    status: Annotated[Word, _either("booking_status", "status")] = None
    firstname: Annotated[Text, _either("firstname", "profile.firstname")] = None
    lastname: Annotated[Text, _either("lastname", "profile.lastname")] = None
    email: Annotated[Text, _either("email", "profile.email")] = None
    mobile: Annotated[Text, _either("mobile", "profile.mobile")] = None
    phone: Annotated[Text, _either("phone", "profile.phone")] = None
    timezone: Text = None
    spaces: Annotated[_Spaces | None, ABSENT] = None
    total_spaces: Annotated[_Spaces | None, ABSENT] = None
    questions: Annotated[tuple[_Question, ...], OBJECTS] = ()

    def name(self) -> str | None:
        return " ".join(filter(None, (self.firstname, self.lastname))) or None

    def places(self) -> int:
        """Return the number of places that the customer takes.

        Webhooks in the form of 2017 have `spaces` or nothing.
        """
        return next((count for count in (self.total_spaces, self.spaces) if count is not None), 1)

    def answers(self) -> tuple[Answer, ...]:
        """Return the booking form's questions with this customer's answers."""
        return tuple(
            Answer(question.label, question.value)
            for question in self.questions
            if question.label or question.value
        )


class _NamedObject(Payload):
    """A service, or a person or thing that is booked: `bookables` in webhooks, `resource` in REST."""

    id: Text = None
    name: Annotated[Text, _either("name", "profile.name")] = None


_MaybeNamedObject = Annotated[_NamedObject | None, REFERENCE]
_Participants = Annotated[tuple[_Participant, ...], objects_or("id")]
_Bookables = Annotated[tuple[_NamedObject, ...], objects_or("id")]


class _Booking(Payload):
    id: Id
    updated: Instant
    created: MaybeInstant = None
    starts_at: Annotated[MaybeInstant, _either("start_time", "start")] = None
    ends_at: Annotated[MaybeInstant, _either("end_time", "end")] = None
    status: Word = None
    price: MaybeAmount = None


class BookingData(Payload):
    """A booking with its participants, bookables and service, in the form of a webhook's `event_data`."""

    booking: _Booking
    participants: _Participants = ()
    bookables: _Bookables = ()
    service: _MaybeNamedObject = None

    def status(self) -> BookingStatus:
        """Return the status of the booking.

        It is `NO_SHOW` where the booking is not cancelled and every participant is marked as `noshow`, a word
        that is not documented.
        """
        status = _STATUSES.get(self.booking.status or "", BookingStatus.UNKNOWN)
        marks = [participant.status for participant in self.participants]
        if status is not BookingStatus.CANCELLED and marks and all(mark == "noshow" for mark in marks):
            return BookingStatus.NO_SHOW
        return status

    def places(self) -> int | None:
        """Return the number of places taken, which is 0 where nobody takes part.

        Return None where the message does not say who takes part.
        """
        if "participants" not in self.model_fields_set:
            return None
        return sum(participant.places() for participant in self.participants)


class Record(_Booking):
    """A booking of GET /bookings, as `Appointedd.booking_of_record` describes it."""

    customers: _Participants = ()
    resource: _MaybeNamedObject = None
    service: _MaybeNamedObject = None

    def as_data(self) -> BookingData:
        """Return the booking in the form of a webhook. Fields that are absent here stay absent."""
        bookables = (self.resource,) if self.resource else ()
        parts = {
            "customers": ("participants", self.customers),
            "resource": ("bookables", bookables),
            "service": ("service", self.service),
        }
        return BookingData(
            booking=self, **dict(parts[name] for name in parts if name in self.model_fields_set)
        )


# The form of 2017 lacks some fields, webhooks have no telephone numbers, and records only have names if these
# were looked up.
_SOURCES: Sources = {
    "status": ("booking.status",),
    "starts_at": ("booking.starts_at",),
    "ends_at": ("booking.ends_at",),
    "created_at": ("booking.created",),
    "price": ("booking.price",),
    "timezone": ("participants.timezone",),
    "participants": ("participants",),
    "service_id": ("service.id",),
    "service_name": ("service.name",),
    "staff": ("bookables.id",),
    "staff_name": ("bookables.name",),
    "customer_id": ("participants.customer_id",),
    "customer_name": ("participants.firstname", "participants.lastname"),
    "customer_email": ("participants.email",),
    "customer_phone": ("participants.mobile", "participants.phone"),
    "answers": ("participants.questions",),
}


def booking_of_data(data: BookingData, *, cancelled: bool) -> Booking:
    """Map a booking to the canonical one.

    The customer's columns, answers included, are those of the first participant.
    """
    booking, customer = data.booking, next(iter(data.participants), _Participant())
    service = data.service or _NamedObject()
    status = BookingStatus.CANCELLED if cancelled else data.status()
    canonical = Booking(
        booking_id=booking.id,
        version=_version(booking, status),
        status=status,
        starts_at=booking.starts_at,
        ends_at=booking.ends_at,
        timezone=customer.timezone,  # the booking's own zone is in webhooks only
        created_at=booking.created,
        updated_at=booking.updated,
        service_id=service.id,
        service_name=service.name,
        staff=unique(bookable.id for bookable in data.bookables),
        staff_name=next((bookable.name for bookable in data.bookables), None),
        customer_id=customer.customer_id,
        customer_name=customer.name(),
        customer_email=customer.email,
        customer_phone=customer.mobile or customer.phone,
        participants=data.places(),
        price=booking.price,  # no payload and no record tells the currency
        answers=customer.answers(),
    )
    canonical.untold = untold(data, canonical, _SOURCES)
    return canonical


def _version(booking: _Booking, status: BookingStatus) -> str:
    """Return the second of `updated` with the rank of what happened in it: 0 created, 1 changed, 2 cancelled.

    `updated` equals `created`, to the millisecond, until the first change. A change sets it to a whole
    second, and it is not documented whether that is cut or rounded. So a change at 10:00:00.9 of a booking
    created at 10:00:00.742 may look *older* than the creation. If both are cut to the second, a change never
    sorts before what happened earlier. The rank, which can be computed from webhooks and REST alike, orders
    creation, change and cancellation within a second. Two changes within a second tie.
    """
    changed = 0 if booking.updated == booking.created else 1
    rank = 2 if status is BookingStatus.CANCELLED else changed
    return f"{format_instant(booking.updated.replace(microsecond=0))}.{rank}"
