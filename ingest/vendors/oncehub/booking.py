"""OnceHub's booking, with the objects in it, as webhooks and REST have it.

Webhooks have the whole conversation that made the booking, and lack `contact` and `utm_params`. REST has
these two, and only the ids of objects that are not expanded.
https://help.oncehub.com/developers/api/
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from msgspec import UNSET, Struct

from ingest.booking import Answer
from ingest.errors import PayloadError
from ingest.vendors.fields import (
    MaybeList,
    MaybeObject,
    Sources,
    as_object,
    read_any_text,
    read_maybe_amount,
    read_maybe_instant,
    read_maybe_integer,
    read_part,
    read_parts,
    read_text,
    read_texts_by_name,
    unique,
)

# Currencies whose number of digits after the point is not two. ISO 4217.
_WITHOUT_DIGITS = [
    "BIF",
    "CLP",
    "DJF",
    "GNF",
    "ISK",
    "JPY",
    "KMF",
    "KRW",
    "PYG",
    "RWF",
    "UGX",
    "VND",
    "VUV",
    "XAF",
    "XOF",
    "XPF",
]
_WITH_THREE_DIGITS = ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"]
_EXPONENTS = dict.fromkeys(_WITHOUT_DIGITS, 0) | dict.fromkeys(_WITH_THREE_DIGITS, 3)

# The columns of the customer, with the fields that they are read from.
_FORM_SOURCES: Sources = {
    "customer_name": ("form_submission.name",),
    "customer_email": ("form_submission.email",),
    "customer_phone": ("form_submission.phone", "form_submission.mobile_phone"),
}
_CONVERSATION_SOURCES: Sources = {
    "customer_name": ("conversation.contact.first_name", "conversation.contact.last_name"),
    "customer_email": ("conversation.contact.email",),
    "customer_phone": ("conversation.contact.phone", "conversation.contact.mobile_phone"),
}
_CONTACT_SOURCES: Sources = {
    "customer_name": ("contact.first_name", "contact.last_name"),
    "customer_email": ("contact.email",),
    "customer_phone": ("contact.phone", "contact.mobile_phone"),
}
NOBODY_SOURCES: Sources = {
    column: (*_FORM_SOURCES[column], *_CONTACT_SOURCES[column]) for column in _FORM_SOURCES
}


def _read_addresses(people: object) -> list[str | None]:
    """Return one entry for each person of a list: the e-mail address, or None where there is none."""
    entries = people if isinstance(people, list) else ()
    return [read_text(entry.get("email") if isinstance(entry, dict) else entry) for entry in entries if entry]


class Reference(Struct):
    """A reference to another object, which has at least the object's id."""

    id: object = UNSET


class User(Reference):
    """A host."""

    first_name: object = UNSET
    last_name: object = UNSET
    email: object = UNSET

    def name(self) -> str | None:
        """Return the first and the last name."""
        return " ".join(filter(None, (read_text(self.first_name), read_text(self.last_name)))) or None


class Contact(User):
    """A customer, independent of any booking."""

    phone: object = UNSET
    mobile_phone: object = UNSET


class Question(Struct):
    """A question of a conversation, with its answer."""

    question: object = UNSET
    value: object = UNSET


class Field(Struct):
    """A custom field."""

    name: object = UNSET
    value: object = UNSET


class Conversation(Reference):
    """A conversation with a chatbot or a routing form. In REST it may be only an id."""

    contact: MaybeObject[Contact] = UNSET
    owner: MaybeObject[User] = UNSET
    answers: MaybeList[Question] = UNSET

    def __post_init__(self) -> None:
        """Make objects of people who are only ids."""
        self.contact = as_object(Contact, self.contact, "id")
        self.owner = as_object(User, self.owner, "id")


class Conferencing(Struct):
    """The video call."""

    join_url: object = UNSET


class Change(Struct):
    """The reason for moving or cancelling a booking."""

    reason: object = UNSET
    actioned_by: object = UNSET


class Form(Struct):
    """The form that the customer filled in."""

    name: object = UNSET
    email: object = UNSET
    phone: object = UNSET
    mobile_phone: object = UNSET
    guests: object = UNSET
    custom_fields: MaybeList[Field] = UNSET


class Payment(Struct):
    """The amount that was charged."""

    amount_charged: object = UNSET
    currency: object = UNSET

    def price(self) -> tuple[Decimal, str] | tuple[None, None]:
        """Return the amount in major units and its currency, or None for both. Raises PayloadError.

        The vendor's amount is in minor units, which mean nothing without a currency.
        """
        amount = read_maybe_amount("payment_information.amount_charged", self.amount_charged)
        currency = (read_text(self.currency) or "").upper()
        if amount is None or not currency:
            return None, None
        return amount.scaleb(-_EXPONENTS.get(currency, 2)), currency


class Calendar(Struct):
    """The host's calendar, often named by the host's address."""

    id: object = UNSET
    name: object = UNSET


@dataclass(frozen=True, slots=True)
class Customer:
    """The person who booked, and the payload's fields that describe this person."""

    sources: Sources
    name: str | None = None
    email: str | None = None
    phone: str | None = None


class Booked(Struct):
    """OnceHub's booking, in the form that webhooks and REST have."""

    id: object = UNSET
    creation_time: object = UNSET
    last_updated_time: object = UNSET
    starting_time: object = UNSET
    duration_minutes: object = UNSET
    status: object = UNSET
    subject: object = UNSET
    customer_timezone: object = UNSET
    location_description: object = UNSET
    rescheduled_booking_id: object = UNSET
    attendees: object = UNSET
    owner: MaybeObject[User] = UNSET
    booking_calendar: MaybeObject[Reference] = UNSET
    event_type: MaybeObject[Reference] = UNSET
    booking_page: MaybeObject[Reference] = UNSET
    master_page: MaybeObject[Reference] = UNSET
    virtual_conferencing: MaybeObject[Conferencing] = UNSET
    cancel_reschedule_information: MaybeObject[Change] = UNSET
    form_submission: MaybeObject[Form] = UNSET
    conversation: MaybeObject[Conversation] = UNSET
    contact: MaybeObject[Contact] = UNSET
    payment_information: MaybeObject[Payment] = UNSET
    external_calendar: MaybeObject[Calendar] = UNSET
    custom_fields: MaybeList[Field] = UNSET
    utm_params: object = UNSET

    def __post_init__(self) -> None:
        """Leave out nulls that clear nothing, and make objects of those that are only ids.

        A booking of a conversation has null as `form_submission`. Every booking has a contact; where captured
        webhooks have null as `contact`, the conversation has it. An empty form counts as none.
        """
        if not self.form_submission or self.form_submission == Form():
            self.form_submission = UNSET
        if not self.contact or self.contact == Contact():
            self.contact = UNSET
        self.contact = as_object(Contact, self.contact, "id")
        self.conversation = as_object(Conversation, self.conversation, "id")
        self.owner = as_object(User, self.owner, "id")
        self.booking_calendar = as_object(Reference, self.booking_calendar, "id")
        self.event_type = as_object(Reference, self.event_type, "id")
        self.booking_page = as_object(Reference, self.booking_page, "id")
        self.master_page = as_object(Reference, self.master_page, "id")

    def read_form(self) -> Form | None:
        """Return the form that the customer filled in."""
        return read_part(Form, self.form_submission)

    def read_conversation(self) -> Conversation | None:
        """Return the conversation that made the booking."""
        return read_part(Conversation, self.conversation)

    def contacts(self) -> tuple[Contact, Contact]:
        """Return the booking's contact and the conversation's, each without fields where there is none."""
        conversation = self.read_conversation() or Conversation()
        return (
            read_part(Contact, self.contact) or Contact(),
            read_part(Contact, conversation.contact) or Contact(),
        )

    def host(self) -> User:
        """Return the host, who has no fields where the message has none."""
        return read_part(User, self.owner) or User()

    def service_id(self) -> str | None:
        """Return the id of what was booked."""
        parts = (self.booking_calendar, self.event_type, self.booking_page, self.master_page)
        services = (read_part(Reference, part) for part in parts)
        return next((text for service in services if service and (text := read_text(service.id))), None)

    def starts_at(self) -> datetime | None:
        """Return the start. Raises PayloadError."""
        return read_maybe_instant("starting_time", self.starting_time)

    def ends_at(self, starts_at: datetime | None) -> datetime | None:
        """Return the end, computed from start and duration. Raises PayloadError."""
        minutes = read_maybe_integer("duration_minutes", self.duration_minutes)
        if starts_at is None or minutes is None:
            return None
        try:
            return starts_at + timedelta(minutes=minutes)
        except OverflowError:
            raise PayloadError("duration_minutes leads out of the calendar") from None

    def price(self) -> tuple[Decimal, str] | tuple[None, None]:
        """Return the price and its currency, or None for both. Raises PayloadError."""
        payment = read_part(Payment, self.payment_information)
        return payment.price() if payment else (None, None)

    def customer(self) -> Customer:
        """Return the person who booked.

        This is the person who filled in the form, else the conversation's contact, else the booking's
        contact, else the only attendee beside the host.
        """
        form, contact, conversation_contact = self.read_form(), *self.contacts()
        return (
            (form and _customer(form, read_text(form.name), _FORM_SOURCES))
            or _customer(conversation_contact, conversation_contact.name(), _CONVERSATION_SOURCES)
            or _customer(contact, contact.name(), _CONTACT_SOURCES)
            or Customer(NOBODY_SOURCES, email=self.attendee())
        )

    def unread_contact(self) -> str | None:
        """Return the contact's id where the booking does not say who booked; None where it does."""
        return self.customer_id() if self.customer().sources is NOBODY_SOURCES else None

    def customer_id(self) -> str | None:
        """Return the contact's id."""
        contact, conversation_contact = self.contacts()
        return read_text(contact.id) or read_text(conversation_contact.id)

    def attendee(self) -> str | None:
        """Return the address of the only attendee beside the host.

        Returns None where the host's address is unknown, and where there is no such attendee or several.
        """
        calendar = read_part(Calendar, self.external_calendar) or Calendar()
        conversation = self.read_conversation() or Conversation()
        owner = read_part(User, conversation.owner) or User()
        known = map(read_text, (self.host().email, owner.email, calendar.id, calendar.name))
        hosts = {address.lower() for address in known if address and "@" in address}
        attendees = unique(
            address
            for address in _read_addresses(self.attendees)
            if address and "@" in address and address.lower() not in hosts
        )
        return attendees[0] if hosts and len(attendees) == 1 else None

    def guests(self) -> list[str | None] | None:
        """Return the address of each guest, or None for one without. Only a form says who they are."""
        form = self.read_form()
        return _read_addresses(form.guests) if form else None

    def participants(self, customer: Customer) -> int | None:
        """Return the number of people: the customer and the guests, who are only known from a form."""
        if (guests := self.guests()) is not None:
            return 1 + len(guests)
        is_known = self.read_conversation() or customer.name or customer.email or customer.phone
        return 1 if is_known else None

    def answers(self) -> tuple[Answer, ...]:
        """Return the questions with their answers.

        Those of the conversation come first, then the custom fields of the form, then those of the booking.
        """
        conversation, form = self.read_conversation(), self.read_form()
        questions = read_parts(Question, conversation.answers) if conversation else ()
        fields = (
            *(read_parts(Field, form.custom_fields) if form else ()),
            *read_parts(Field, self.custom_fields),
        )
        pairs = dict.fromkeys(
            [
                *((read_text(entry.question), read_any_text(entry.value)) for entry in questions),
                *((read_text(entry.name), read_any_text(entry.value)) for entry in fields),
            ]
        )
        return tuple(Answer(question, answer) for question, answer in pairs if question or answer)

    def tracking(self) -> dict[str, str] | None:
        """Return the campaign parameters under their usual names, which begin with `utm_`."""
        parameters = read_texts_by_name(self.utm_params)
        return parameters and {
            f"utm_{name.removeprefix('utm_')}": value for name, value in parameters.items()
        }

    def join_url(self) -> str | None:
        """Return how to join the video call, which may be a phone number instead of a link."""
        conferencing = read_part(Conferencing, self.virtual_conferencing)
        return read_text(conferencing.join_url) if conferencing else None


def _customer(person: Form | Contact, name: str | None, sources: Sources) -> Customer | None:
    """Return a person as the customer; None where nothing is known of this person."""
    email = read_text(person.email)
    phone = read_text(person.phone) or read_text(person.mobile_phone)
    return Customer(sources, name, email, phone) if name or email or phone else None
