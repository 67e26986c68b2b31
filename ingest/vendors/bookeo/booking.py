"""The mapping of Bookeo's booking to the canonical one.

A webhook's `item` is the object that REST returns. Bookeo leaves out empty fields: a customer without an
e-mail address has no `emailAddress`, and a booking that was never changed has no `lastChangeTime`. So an
object that is present has all of its fields that are not empty.
https://www.bookeo.com/apiref/
"""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from ingest.booking import Answer, Booking, BookingStatus
from ingest.errors import PayloadError
from ingest.times import format_instant
from ingest.vendors.fields import (
    ABSENT,
    OBJECT,
    OBJECTS,
    AnyText,
    Id,
    MaybeAmount,
    MaybeFlag,
    MaybeInstant,
    Payload,
    Sources,
    Text,
    objects_or,
    unique,
    untold,
)

_SOURCES: Sources = {
    "group_id": ("event_id",),
    "starts_at": ("start_time",),
    "ends_at": ("end_time",),
    "created_at": ("creation_time",),
    "service_id": ("product_id",),
    "service_name": ("product_name",),
    "staff": ("resources",),
    "staff_name": ("resources",),
    "customer_id": ("customer_id",),
    "participants": ("participants",),
    "price": ("price",),
    "currency": ("price",),
}
_CANCELED_SOURCES: Sources = {"cancelled_at": ("cancelation_time",), "cancelled_by": ("cancelation_agent",)}
# The ids of the participant who booked, and of a participant who is not known.
_SELF, _UNKNOWN = "PSELF", "PUNKNOWN"


def read_number(value: object) -> object:
    """Return a booking number as text, even if it is a number in JSON; None for an empty text.

    Bookeo asks clients to treat it always as text.
    """
    if value == "":
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    try:
        return str(value)
    except ValueError:  # a number with more digits than Python writes out, which is no id
        return value


Number = Annotated[Id, BeforeValidator(read_number)]
MaybeNumber = Annotated[Id | None, BeforeValidator(read_number)]
# The number of people is limited, so that no sum of such numbers exceeds the warehouse's integer.
_People = Annotated[int, Field(ge=0, le=1_000_000)]


class Part(Payload):
    """An object of Bookeo, whose fields are in camel case."""

    model_config = ConfigDict(alias_generator=to_camel)


class _Resource(Part):
    id: Text = None
    name: Text = None


class _Phone(Part):
    number: Text = None


class _Field(Part):
    """An option of the booking, or a custom field of the customer."""

    name: Text = None
    value: AnyText = None


_Fields = Annotated[tuple[_Field, ...], OBJECTS]


class _Person(Part):
    first_name: Text = None
    middle_name: Text = None
    last_name: Text = None
    email_address: Text = None
    phone_numbers: Annotated[tuple[_Phone, ...], objects_or("number")] = ()
    custom_fields: _Fields = ()

    @property
    def name(self) -> str | None:
        return " ".join(filter(None, (self.first_name, self.last_name))) or None

    @property
    def phone(self) -> str | None:
        return next((phone.number for phone in self.phone_numbers if phone.number), None)

    def is_called(self, name: str) -> bool:
        """Return whether `name` is the person's name, with or without the middle name, or e-mail address."""
        full_name = " ".join(filter(None, (self.first_name, self.middle_name, self.last_name)))
        aliases = (self.name, full_name, self.email_address)
        return _normalize(name) in {_normalize(alias) for alias in aliases if alias}


def _normalize(name: str) -> str:
    """Return a name without superfluous blanks and differences of case."""
    return " ".join(name.split()).casefold()


class _Category(Part):
    number: Annotated[_People | None, ABSENT] = None


class _Participant(Part):
    person_id: Text = None
    person_details: Annotated[_Person | None, OBJECT] = None


class _Participants(Part):
    numbers: Annotated[tuple[_Category, ...], OBJECTS] = ()
    details: Annotated[tuple[_Participant, ...], OBJECTS] = ()

    def count(self) -> int | None:
        return sum(category.number or 0 for category in self.numbers) if self.numbers else None

    def customer(self) -> _Person | None:
        return next(
            (participant.person_details for participant in self.details if participant.person_id == _SELF),
            None,
        )

    def are_known(self) -> bool:
        """Return whether the message says who takes part.

        A key without the right to read customers only gets ids.
        """
        guests = [
            participant for participant in self.details if participant.person_id not in {_SELF, _UNKNOWN}
        ]
        return "details" in self.model_fields_set and (
            not guests or any(participant.person_details for participant in guests)
        )

    def guests(self) -> Iterator[_Person]:
        """Yield the participants other than the customer."""
        return (
            participant.person_details
            for participant in self.details
            if participant.person_details and participant.person_id != _SELF
        )


class _Money(Part):
    amount: MaybeAmount = None
    currency: Text = None


class _Price(Part):
    total_gross: Annotated[_Money | None, ABSENT] = None


class Item(Part):
    """A booking, or as much of it as a deletion contains."""

    event_id: Text = None
    start_time: MaybeInstant = None
    end_time: MaybeInstant = None
    customer_id: Text = None
    customer: Annotated[_Person | None, OBJECT] = None
    participants: Annotated[_Participants | None, ABSENT] = None
    resources: Annotated[tuple[_Resource, ...], objects_or("id")] = ()
    options: _Fields = ()
    canceled: MaybeFlag = None
    cancelation_time: MaybeInstant = None
    cancelation_agent: Text = None
    accepted: MaybeFlag = None
    no_show: MaybeFlag = None
    creation_time: MaybeInstant = None
    last_change_time: MaybeInstant = None
    product_name: Text = None
    product_id: Text = None
    price: Annotated[_Price | None, ABSENT] = None

    def changed_at(self) -> datetime | None:
        """Return the time of the last change; None where the message has no time.

        `lastChangeTime` is absent until the first change. These times look cut to the minute.
        """
        moments = (self.last_change_time or self.creation_time, self.cancelation_time)
        return max((moment for moment in moments if moment), default=None)

    def status(self) -> BookingStatus:
        """Return the status that the flags mean, because Bookeo has no field for it."""
        if self.no_show:
            return BookingStatus.NO_SHOW
        if self.canceled:
            return BookingStatus.CANCELLED
        return BookingStatus.PENDING if self.accepted is False else BookingStatus.CONFIRMED

    def gross(self) -> tuple[Decimal | None, str | None]:
        """Return the gross price as amount and currency; two None without an amount."""
        money = (self.price and self.price.total_gross) or _Money()
        return (None, None) if money.amount is None else (money.amount, money.currency)

    def person(self) -> _Person | None:
        """Return the person who booked.

        Return None where the message does not say, because a right or a parameter was missing.
        """
        return self.customer or (self.participants.customer() if self.participants else None)

    def answers(self) -> tuple[Answer, ...]:
        """Return the chosen options, then the customer's custom fields."""
        person = self.person()
        fields = (*self.options, *(person.custom_fields if person else ()))
        pairs = dict.fromkeys((field.name, field.value) for field in fields if field.name or field.value)
        return tuple(Answer(name, value) for name, value in pairs)

    def guests(self) -> tuple[str, ...]:
        """Return the e-mail addresses of the participants without the customer."""
        customer = self.person()
        addresses = (
            unique(guest.email_address for guest in self.participants.guests()) if self.participants else ()
        )
        return tuple(address for address in addresses if not customer or address != customer.email_address)

    def canceler(self) -> str | None:
        """Return `customer` if the customer cancelled, else the name of the person who did.

        Bookeo names a person and does not say on which side.
        """
        agent, customer = self.cancelation_agent, self.person()
        return "customer" if agent and customer and customer.is_called(agent) else agent


class Record(Item):
    """A booking as `GET /bookings` returns it."""

    booking_number: Number


def mark_deleted(item: Item | None, at: datetime | None) -> Item:
    """Return the item of a deletion as cancelled, at this time unless the item already says that it is.

    A deletion is either a cancellation, and the item says so, or a hard deletion. Only the envelope shows a
    hard deletion, perhaps without an item.
    """
    item = item or Item()
    if item.canceled:
        return item
    return item.model_copy(update={"canceled": True, "cancelation_time": at})


def booking_of(booking_id: str, item: Item, changed_at: datetime | None, timezone: str | None) -> Booking:
    """Map a booking to the canonical one. `timezone` is the account's.

    Raises PayloadError when nothing says when the booking was changed.
    """
    if changed_at is None:
        raise PayloadError("not the documented shape: no time of change")
    status, customer, (price, currency) = item.status(), item.person() or _Person(), item.gross()
    booking = Booking(
        booking_id=booking_id,
        version=format_instant(changed_at),
        status=status,
        group_id=item.event_id,
        starts_at=item.start_time,
        ends_at=item.end_time,
        timezone=timezone,
        created_at=item.creation_time,
        updated_at=changed_at,
        service_id=item.product_id,
        service_name=item.product_name,
        staff=unique(resource.id for resource in item.resources),
        staff_name=next((resource.name for resource in item.resources), None),
        customer_id=item.customer_id,
        customer_name=customer.name,
        customer_email=customer.email_address,
        customer_phone=customer.phone,
        participants=item.participants.count() if item.participants else None,
        price=price,
        currency=currency,
        cancelled_at=item.cancelation_time if item.canceled else None,
        cancelled_by=item.canceler() if item.canceled else None,
        answers=item.answers(),
        guests=item.guests(),
    )
    booking.untold = _untold(item, booking)
    return booking


def _untold(item: Item, booking: Booking) -> frozenset[str]:
    """Return the columns that this message says nothing about, and those that are only a guess.

    Any other message corrects a guess.
    """
    guesses = set()
    if item.person() is None:
        guesses |= {"customer_name", "customer_email", "customer_phone"}
    if item.person() is None or "options" not in item.model_fields_set:
        guesses.add("answers")
    if item.participants is None or not item.participants.are_known():
        guesses.add("guests")
    if not item.canceled and item.accepted is None and item.no_show is None and item.canceled is None:
        guesses.add("status")
    return untold(item, booking, {**_SOURCES, **(_CANCELED_SOURCES if item.canceled else {})}) | guesses
