"""OnceHub's booking, with the objects in it, as webhooks and REST have it.

Webhooks have the whole conversation that made the booking, and lack `contact` and `utm_params`. REST has
these two, and only the ids of objects that are not expanded.
https://help.oncehub.com/developers/api/
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, model_validator

from ingest.booking import Answer
from ingest.errors import PayloadError
from ingest.vendors.fields import (
    ABSENT,
    OBJECT,
    OBJECTS,
    REFERENCE,
    AnyText,
    Id,
    Instant,
    MaybeAmount,
    MaybeInstant,
    Parameters,
    Payload,
    Sources,
    Text,
    Word,
    unique,
    web_link,
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


def _addresses(value: object) -> object:
    """Return one entry for each person: the e-mail address, or None where there is none."""
    entries = value if isinstance(value, list | tuple) else ()
    return [entry.get("email") if isinstance(entry, dict) else entry for entry in entries if entry]


ADDRESSES = BeforeValidator(_addresses)


class Reference(Payload):
    """A reference to another object, which has at least the object's id."""

    id: Text = None


class User(Reference):
    """A host."""

    first_name: Text = None
    last_name: Text = None
    email: Text = None

    @property
    def name(self) -> str | None:
        """Return the first and the last name."""
        return " ".join(part for part in (self.first_name, self.last_name) if part) or None


class Contact(User):
    """A customer, independent of any booking."""

    phone: Text = None
    mobile_phone: Text = None


class Question(Payload):
    """A question of a conversation, with its answer."""

    question: Text = None
    value: AnyText = None


class Field(Payload):
    """A custom field."""

    name: Text = None
    value: AnyText = None


Fields = Annotated[tuple[Field, ...], OBJECTS]


class Conversation(Reference):
    """A conversation with a chatbot or a routing form. In REST it may be only an id."""

    contact: Annotated[Contact | None, REFERENCE] = None
    owner: Annotated[User | None, REFERENCE] = None
    answers: Annotated[tuple[Question, ...], OBJECTS] = ()


class Conferencing(Payload):
    """The video call."""

    join_url: Text = None


class Change(Payload):
    """The reason for moving or cancelling a booking."""

    reason: Text = None
    actioned_by: Text = None


class Form(Payload):
    """The form that the customer filled in."""

    name: Text = None
    email: Text = None
    phone: Text = None
    mobile_phone: Text = None
    guests: Annotated[tuple[Text, ...], ADDRESSES] = ()
    custom_fields: Fields = ()


class Payment(Payload):
    """The amount that was charged."""

    amount_charged: MaybeAmount = None
    currency: Text = None

    def price(self) -> tuple[Decimal, str] | tuple[None, None]:
        """Return the amount in major units and its currency, or None for both.

        The vendor's amount is in minor units, which mean nothing without a currency.
        """
        if self.amount_charged is None or self.currency is None:
            return None, None
        currency = self.currency.upper()
        return self.amount_charged.scaleb(-_EXPONENTS.get(currency, 2)), currency


class Calendar(Payload):
    """The host's calendar, often named by the host's address."""

    id: Text = None
    name: Text = None


@dataclass(frozen=True, slots=True)
class Customer:
    """The person who booked, and the payload's fields that describe this person."""

    sources: Sources
    name: str | None = None
    email: str | None = None
    phone: str | None = None

    @property
    def is_known(self) -> bool:
        """Return whether anything is known of this person."""
        return any((self.name, self.email, self.phone))


class Booked(Payload):
    """OnceHub's booking, in the form that webhooks and REST have."""

    id: Id
    creation_time: Instant
    last_updated_time: MaybeInstant = None
    starting_time: MaybeInstant = None
    duration_minutes: Annotated[int | None, ABSENT] = None
    status: Word = None
    subject: Text = None
    customer_timezone: Text = None
    location_description: Text = None
    rescheduled_booking_id: Text = None
    attendees: Annotated[tuple[Text, ...], ADDRESSES] = ()
    owner: Annotated[User | None, REFERENCE] = None
    booking_calendar: Annotated[Reference | None, REFERENCE] = None
    event_type: Annotated[Reference | None, REFERENCE] = None
    booking_page: Annotated[Reference | None, REFERENCE] = None
    master_page: Annotated[Reference | None, REFERENCE] = None
    virtual_conferencing: Annotated[Conferencing | None, OBJECT] = None
    cancel_reschedule_information: Annotated[Change | None, OBJECT] = None
    form_submission: Annotated[Form | None, OBJECT] = None
    conversation: Annotated[Conversation | None, REFERENCE] = None
    contact: Annotated[Contact | None, REFERENCE] = None
    payment_information: Annotated[Payment | None, OBJECT] = None
    external_calendar: Annotated[Calendar | None, OBJECT] = None
    custom_fields: Fields = ()
    utm_params: Parameters = None

    @model_validator(mode="before")
    @classmethod
    def _without_idle_nulls(cls, value: object) -> object:
        """Drop nulls that clear nothing.

        A booking of a conversation has null as `form_submission`. Every booking has a contact; where captured
        webhooks have null as `contact`, the conversation has it. An empty form counts as none.
        """
        if not isinstance(value, dict):
            return value
        return {
            name: part for name, part in value.items() if part or name not in {"form_submission", "contact"}
        }

    def service_id(self) -> str | None:
        """Return the id of what was booked."""
        parts = (self.booking_calendar, self.event_type, self.booking_page, self.master_page)
        return next((part.id for part in parts if part and part.id), None)

    def ends_at(self) -> datetime | None:
        """Return the end, computed from start and duration. Raises PayloadError."""
        if self.starting_time is None or self.duration_minutes is None:
            return None
        try:
            return self.starting_time + timedelta(minutes=self.duration_minutes)
        except OverflowError:
            raise PayloadError("duration_minutes leads out of the calendar") from None

    def customer(self) -> Customer:
        """Return the person who booked.

        This is the person who filled in the form, else the conversation's contact, else the booking's
        contact, else the only attendee beside the host.
        """
        contact = self.conversation.contact if self.conversation else None
        people = [
            Customer(_FORM_SOURCES, form.name, form.email, form.phone or form.mobile_phone)
            if (form := self.form_submission)
            else None,
            Customer(
                _CONVERSATION_SOURCES, contact.name, contact.email, contact.phone or contact.mobile_phone
            )
            if contact
            else None,
            Customer(_CONTACT_SOURCES, person.name, person.email, person.phone or person.mobile_phone)
            if (person := self.contact)
            else None,
        ]
        return next(
            (customer for customer in people if customer and customer.is_known),
            Customer(NOBODY_SOURCES, email=self.attendee()),
        )

    def unread_contact(self) -> str | None:
        """Return the contact's id where the booking does not say who booked; None where it does."""
        return self.customer_id() if self.customer().sources is NOBODY_SOURCES else None

    def customer_id(self) -> str | None:
        """Return the contact's id."""
        contacts = (self.contact, self.conversation.contact if self.conversation else None)
        return next((contact.id for contact in contacts if contact and contact.id), None)

    def attendee(self) -> str | None:
        """Return the address of the only attendee beside the host.

        Returns None where the host's address is unknown, and where there is no such attendee or several.
        """
        calendar = self.external_calendar or Calendar()
        owners = (self.owner, self.conversation.owner if self.conversation else None)
        addresses = [*(owner.email for owner in owners if owner), calendar.id, calendar.name]
        hosts = {address.lower() for address in addresses if address and "@" in address}
        attendees = unique(
            address
            for address in self.attendees
            if address and "@" in address and address.lower() not in hosts
        )
        return attendees[0] if hosts and len(attendees) == 1 else None

    def participants(self) -> int | None:
        """Return the number of people: the customer and the guests, who are only known from a form."""
        if self.form_submission:
            return 1 + len(self.form_submission.guests)
        return 1 if self.conversation or self.customer().is_known else None

    def answers(self) -> tuple[Answer, ...]:
        """Return the questions with their answers.

        Those of the conversation come first, then the custom fields of the form, then those of the booking.
        """
        questions = (
            [(entry.question, entry.value) for entry in self.conversation.answers]
            if self.conversation
            else []
        )
        fields = [*(self.form_submission.custom_fields if self.form_submission else ()), *self.custom_fields]
        pairs = dict.fromkeys([*questions, *((entry.name, entry.value) for entry in fields)])
        return tuple(Answer(question, answer) for question, answer in pairs if question or answer)

    def tracking(self) -> dict[str, str] | None:
        """Return the campaign parameters under their usual names, which begin with `utm_`."""
        return self.utm_params and {
            f"utm_{name.removeprefix('utm_')}": value for name, value in self.utm_params.items()
        }

    def link(self) -> str | None:
        """Return the link of the video call.

        `join_url` may be a phone number instead, and `location_description` may be nothing but a link.
        """
        return web_link(
            self.virtual_conferencing.join_url if self.virtual_conferencing else None,
            self.location_description,
        )
