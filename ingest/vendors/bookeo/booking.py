"""The mapping of Bookeo's booking to the canonical one.

A webhook's `item` is the object that REST returns. Bookeo leaves out empty fields: a customer without an
e-mail address has no `emailAddress`, and a booking that was never changed has no `lastChangeTime`. So an
object that is present has all of its fields that are not empty.
https://www.bookeo.com/apiref/
"""

from datetime import datetime
from decimal import Decimal

from msgspec import UNSET, Struct

from ingest.booking import Answer, Booking, BookingStatus
from ingest.errors import PayloadError
from ingest.times import format_instant
from ingest.vendors.fields import (
    MaybeList,
    MaybeObject,
    Sources,
    as_objects,
    read_any_text,
    read_maybe_amount,
    read_maybe_count,
    read_maybe_flag,
    read_maybe_instant,
    read_maybe_part,
    read_part,
    read_parts,
    read_text,
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
# The number of people is limited, so that no sum of such numbers exceeds the warehouse's integer.
_MOST_PEOPLE = 1_000_000


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


class _Resource(Struct):
    id: object = UNSET
    name: object = UNSET


class _Phone(Struct):
    number: object = UNSET


class _Field(Struct):
    """An option of the booking, or a custom field of the customer."""

    name: object = UNSET
    value: object = UNSET


class _Person(Struct, rename="camel"):
    first_name: object = UNSET
    middle_name: object = UNSET
    last_name: object = UNSET
    email_address: object = UNSET
    phone_numbers: MaybeList[_Phone] = UNSET
    custom_fields: MaybeList[_Field] = UNSET

    def __post_init__(self) -> None:
        """Make objects of telephones that are only numbers."""
        self.phone_numbers = as_objects(_Phone, self.phone_numbers, "number")

    def name(self) -> str | None:
        return " ".join(filter(None, (read_text(self.first_name), read_text(self.last_name)))) or None

    def email(self) -> str | None:
        return read_text(self.email_address)

    def phone(self) -> str | None:
        phones = read_parts(_Phone, self.phone_numbers)
        return next((number for phone in phones if (number := read_text(phone.number))), None)

    def is_called(self, name: str) -> bool:
        """Return whether `name` is the person's name, with or without the middle name, or e-mail address."""
        full_name = map(read_text, (self.first_name, self.middle_name, self.last_name))
        aliases = (self.name(), " ".join(filter(None, full_name)), self.email())
        return _normalize(name) in {_normalize(alias) for alias in aliases if alias}


def _normalize(name: str) -> str:
    """Return a name without superfluous blanks and differences of case."""
    return " ".join(name.split()).casefold()


class _Category(Struct):
    number: object = UNSET


class _Participant(Struct, rename="camel"):
    person_id: object = UNSET
    person_details: MaybeObject[_Person] = UNSET

    def person(self) -> _Person | None:
        return read_part(_Person, self.person_details)


class _Participants(Struct):
    numbers: MaybeList[_Category] = UNSET
    details: MaybeList[_Participant] = UNSET

    def count(self) -> int | None:
        """Return the number of people; None where the message does not say it. Raises PayloadError."""
        counts = [
            read_maybe_count("participants.numbers.number", category.number, _MOST_PEOPLE)
            for category in read_parts(_Category, self.numbers)
        ]
        return sum(filter(None, counts)) if counts else None

    def people(self) -> "People":
        """Return the participants."""
        return [
            (read_text(participant.person_id), participant.person())
            for participant in read_parts(_Participant, self.details)
        ]


# The id of each participant, with what is known of the person.
People = list[tuple[str | None, _Person | None]]


class _Money(Struct):
    amount: object = UNSET
    currency: object = UNSET


class _Price(Struct, rename="camel"):
    total_gross: MaybeObject[_Money] = UNSET


class Item(Struct, rename="camel"):
    """A booking, or as much of it as a deletion contains."""

    event_id: object = UNSET
    start_time: object = UNSET
    end_time: object = UNSET
    customer_id: object = UNSET
    customer: MaybeObject[_Person] = UNSET
    participants: MaybeObject[_Participants] = UNSET
    resources: MaybeList[_Resource] = UNSET
    options: MaybeList[_Field] = UNSET
    canceled: object = UNSET
    cancelation_time: object = UNSET
    cancelation_agent: object = UNSET
    accepted: object = UNSET
    no_show: object = UNSET
    creation_time: object = UNSET
    last_change_time: object = UNSET
    product_name: object = UNSET
    product_id: object = UNSET
    price: MaybeObject[_Price] = UNSET

    def __post_init__(self) -> None:
        """Make objects of resources that are only ids."""
        self.resources = as_objects(_Resource, self.resources, "id")

    def created_at(self) -> datetime | None:
        """Return the time of the creation. Raises PayloadError."""
        return read_maybe_instant("creationTime", self.creation_time)

    def changed_at(self) -> datetime | None:
        """Return the time of the last change; None where the message has no time. Raises PayloadError.

        `lastChangeTime` is absent until the first change. These times look cut to the minute.
        """
        last_change_at = read_maybe_instant("lastChangeTime", self.last_change_time)
        moments = (last_change_at or self.created_at(), self.cancelled_at())
        return max((moment for moment in moments if moment), default=None)

    def cancelled_at(self) -> datetime | None:
        """Return the time of the cancellation. Raises PayloadError."""
        return read_maybe_instant("cancelationTime", self.cancelation_time)

    def is_canceled(self) -> bool | None:
        """Return whether it is cancelled; None where the message does not say. Raises PayloadError."""
        return read_maybe_flag("canceled", self.canceled)

    def status(self) -> BookingStatus | None:
        """Return the status that the flags mean, because Bookeo has no field for it; None without any flag.

        Raises PayloadError.
        """
        is_canceled, is_no_show = self.is_canceled(), read_maybe_flag("noShow", self.no_show)
        is_accepted = read_maybe_flag("accepted", self.accepted)
        if is_no_show:
            return BookingStatus.NO_SHOW
        if is_canceled:
            return BookingStatus.CANCELLED
        if is_canceled is None and is_no_show is None and is_accepted is None:
            return None
        return BookingStatus.PENDING if is_accepted is False else BookingStatus.CONFIRMED

    def gross(self) -> tuple[Decimal | None, str | None]:
        """Return the gross price as amount and currency; two None without an amount. Raises PayloadError."""
        price = read_maybe_part("price", _Price, self.price) or _Price()
        money = read_maybe_part("price.totalGross", _Money, price.total_gross) or _Money()
        amount = read_maybe_amount("price.totalGross.amount", money.amount)
        return (None, None) if amount is None else (amount, read_text(money.currency))

    def party(self) -> _Participants:
        """Return the participants, who have no fields where the message has none. Raises PayloadError."""
        return read_maybe_part("participants", _Participants, self.participants) or _Participants()


class Record(Item):
    """A booking as `GET /bookings` returns it."""

    booking_number: object = UNSET


def mark_deleted(item: Item | None, at: datetime | None) -> Item:
    """Return the item of a deletion as cancelled, at this time unless the item already says that it is.

    A deletion is either a cancellation, and the item says so, or a hard deletion. Only the envelope shows a
    hard deletion, perhaps without an item.
    """
    item = item or Item()
    if not item.is_canceled():
        item.canceled, item.cancelation_time = True, at
    return item


def booking_of(booking_id: str, item: Item, changed_at: datetime | None, timezone: str | None) -> Booking:
    """Map a booking to the canonical one. `timezone` is the account's.

    Raises PayloadError, also when nothing says when the booking was changed.
    """
    if changed_at is None:
        raise PayloadError("not the documented shape: no time of change")
    status, is_canceled, (price, currency) = item.status(), item.is_canceled(), item.gross()
    party = item.party()
    people = party.people()
    person = read_part(_Person, item.customer) or next((who for id_, who in people if id_ == _SELF), None)
    customer = person or _Person()
    resources = read_parts(_Resource, item.resources)
    cancelled_at, canceler = item.cancelled_at(), _canceler(item, person)
    booking = Booking(
        booking_id=booking_id,
        version=format_instant(changed_at),
        status=status or BookingStatus.CONFIRMED,
        group_id=read_text(item.event_id),
        starts_at=read_maybe_instant("startTime", item.start_time),
        ends_at=read_maybe_instant("endTime", item.end_time),
        timezone=timezone,
        created_at=item.created_at(),
        updated_at=changed_at,
        service_id=read_text(item.product_id),
        service_name=read_text(item.product_name),
        staff=unique(read_text(resource.id) for resource in resources),
        staff_name=next((read_text(resource.name) for resource in resources), None),
        customer_id=read_text(item.customer_id),
        customer_name=customer.name(),
        customer_email=customer.email(),
        customer_phone=customer.phone(),
        participants=party.count(),
        price=price,
        currency=currency,
        cancelled_at=cancelled_at if is_canceled else None,
        cancelled_by=canceler if is_canceled else None,
        answers=_answers(item, customer),
        guests=_guests(people, customer),
    )
    # Columns that are only a guess, which any other message corrects.
    guesses = set()
    if person is None:
        guesses |= {"customer_name", "customer_email", "customer_phone"}
    if person is None or item.options is UNSET:
        guesses.add("answers")
    if party.details is UNSET or not _are_known(people):
        guesses.add("guests")
    if status is None:
        guesses.add("status")
    canceled_sources = _CANCELED_SOURCES if is_canceled else {}
    booking.untold = untold(item, booking, _SOURCES, canceled_sources) | guesses
    return booking


def _canceler(item: Item, customer: _Person | None) -> str | None:
    """Return `customer` if the customer cancelled, else the name of the person who did.

    Bookeo names a person and does not say on which side.
    """
    agent = read_text(item.cancelation_agent)
    return "customer" if agent and customer and customer.is_called(agent) else agent


def _answers(item: Item, customer: _Person) -> tuple[Answer, ...]:
    """Return the chosen options, then the customer's custom fields."""
    fields = (*read_parts(_Field, item.options), *read_parts(_Field, customer.custom_fields))
    pairs = dict.fromkeys((read_text(field.name), read_any_text(field.value)) for field in fields)
    return tuple(Answer(name, value) for name, value in pairs if name or value)


def _guests(people: People, customer: _Person) -> tuple[str, ...]:
    """Return the e-mail addresses of the participants without the customer."""
    addresses = unique(person.email() for id_, person in people if person and id_ != _SELF)
    return tuple(address for address in addresses if address != customer.email())


def _are_known(people: People) -> bool:
    """Return whether the message says who takes part.

    A key without the right to read customers only gets ids.
    """
    guests = [person for id_, person in people if id_ not in {_SELF, _UNKNOWN}]
    return not guests or any(person is not None for person in guests)
