"""The mapping of OnceHub's booking to ours.

It is the same object in webhooks and in REST, with two differences. Webhooks have the whole conversation that
made the booking, and lack `contact` and `utm_params`. REST has `contact` and `utm_params`, and only the ids
of objects that are not expanded.
https://help.oncehub.com/developers/api/
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import model_validator

from ingest.booking import Answer, Booking, BookingStatus
from ingest.errors import PayloadError
from ingest.instant import format_instant
from ingest.vendors.fields import (
    ABSENT,
    OBJECT,
    REFERENCE,
    Id,
    Instant,
    MaybeInstant,
    Parameters,
    Payload,
    Sources,
    Text,
    Word,
    plain_word,
    unique,
    untold,
    web_link,
)
from ingest.vendors.oncehub.parts import (
    ADDRESSES,
    Calendar,
    Change,
    Conferencing,
    Contact,
    Conversation,
    Fields,
    Form,
    Payment,
    Reference,
    User,
)

# `rescheduled` means that the booking takes place at its new time. Only `canceled` ends a booking.
# https://help.oncehub.com/help/effect-of-rescheduling
_STATUSES = {
    "requested": BookingStatus.PENDING,
    "scheduled": BookingStatus.CONFIRMED,
    "rescheduled": BookingStatus.CONFIRMED,
    "completed": BookingStatus.COMPLETED,
    "canceled": BookingStatus.CANCELLED,
    "noshow": BookingStatus.NO_SHOW,
}
_ACTORS = {"customer": "customer", "user": "host"}

_SOURCES: Sources = {
    "status": ("status",),
    "starts_at": ("starting_time",),
    "ends_at": ("starting_time", "duration_minutes"),
    "timezone": ("customer_timezone",),
    "service_id": ("booking_calendar", "event_type", "booking_page", "master_page"),
    "service_name": ("subject",),
    "staff": ("owner",),
    "staff_name": ("owner.first_name", "owner.last_name"),
    "location": ("virtual_conferencing.join_url", "location_description"),
    "conference_url": ("virtual_conferencing.join_url", "location_description"),
    "customer_id": ("contact.id", "conversation.contact.id"),
    "price": ("payment_information",),
    "currency": ("payment_information",),
    "rescheduled_from": ("rescheduled_booking_id",),
    "tracking": ("utm_params",),
    "answers": ("form_submission.custom_fields", "custom_fields", "conversation.answers"),
    "guests": ("form_submission.guests",),
    "participants": ("form_submission.guests",),
}
_CANCELED_SOURCES: Sources = {
    "cancel_reason": ("cancel_reschedule_information.reason",),
    "cancelled_by": ("cancel_reschedule_information.actioned_by",),
}
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
_NOBODY_SOURCES: Sources = {
    column: (*_FORM_SOURCES[column], *_CONTACT_SOURCES[column]) for column in _FORM_SOURCES
}


@dataclass(frozen=True, slots=True)
class _Customer:
    """The person who booked, and the payload's fields that describe this person."""

    sources: Sources
    name: str | None = None
    email: str | None = None
    phone: str | None = None

    @property
    def is_known(self) -> bool:
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

    def customer(self) -> _Customer:
        """Return the person who booked.

        This is the person who filled in the form, else the conversation's contact, else the booking's
        contact, else the only attendee beside the host.
        """
        contact = self.conversation.contact if self.conversation else None
        people = [
            _Customer(_FORM_SOURCES, form.name, form.email, form.phone or form.mobile_phone)
            if (form := self.form_submission)
            else None,
            _Customer(
                _CONVERSATION_SOURCES, contact.name, contact.email, contact.phone or contact.mobile_phone
            )
            if contact
            else None,
            _Customer(_CONTACT_SOURCES, person.name, person.email, person.phone or person.mobile_phone)
            if (person := self.contact)
            else None,
        ]
        return next(
            (customer for customer in people if customer and customer.is_known),
            _Customer(_NOBODY_SOURCES, email=self.attendee()),
        )

    def unread_contact(self) -> str | None:
        """Return the contact's id where the booking does not say who booked; None where it does."""
        return self.customer_id() if self.customer().sources is _NOBODY_SOURCES else None

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


def booking_of_record(data: Booked) -> Booking:
    """Map a booking in the form that REST has. Raises PayloadError."""
    changed_at = data.last_updated_time or data.creation_time
    status = _STATUSES.get(data.status or "", BookingStatus.UNKNOWN)
    # The same object has the reason why a booking was rescheduled, which is no reason of a cancellation.
    cancellation = (
        data.cancel_reschedule_information if status is BookingStatus.CANCELLED else None
    ) or Change()
    price, currency = (data.payment_information or Payment()).price()
    conferencing = data.virtual_conferencing or Conferencing()
    customer = data.customer()
    owner = data.owner or User()
    booking = Booking(
        booking_id=data.id,
        version=format_instant(changed_at),
        status=status,
        starts_at=data.starting_time,
        ends_at=data.ends_at(),
        timezone=data.customer_timezone,
        created_at=data.creation_time,
        updated_at=changed_at,
        service_id=data.service_id(),
        service_name=data.subject,
        staff=(owner.id,) if owner.id else (),
        staff_name=owner.name,
        location=conferencing.join_url or data.location_description,
        customer_id=data.customer_id(),
        customer_name=customer.name,
        customer_email=customer.email,
        customer_phone=customer.phone,
        participants=data.participants(),
        price=price,
        currency=currency,
        cancel_reason=cancellation.reason,
        cancelled_by=_ACTORS.get(plain_word(cancellation.actioned_by or ""), cancellation.actioned_by),
        rescheduled_from=data.rescheduled_booking_id,
        answers=data.answers(),
        tracking=data.tracking(),
        guests=unique(data.form_submission.guests) if data.form_submission else (),
        conference_url=data.link(),
    )
    return replace(booking, untold=_untold(data, booking, customer))


def booking_of_webhook(data: Booked, *, reassigned: bool) -> Booking:
    """Map a booking in the form that webhooks have. Raises PayloadError.

    Webhooks leave out `utm_params`, so a null there does not clear it. After a reassignment the name of the
    earlier owner would be wrong, so a missing name clears it.
    """
    booking = booking_of_record(data)
    tracking_column = frozenset() if booking.tracking else frozenset({"tracking"})
    return replace(
        booking, untold=(booking.untold | tracking_column) - ({"staff_name"} if reassigned else set())
    )


def _untold(data: Booked, booking: Booking, customer: _Customer) -> frozenset[str]:
    """Return the columns that this message says nothing about, or of which it only has a guess.

    Any other message corrects a guess.
    """
    sources = {
        **_SOURCES,
        **customer.sources,
        **(_CANCELED_SOURCES if booking.status is BookingStatus.CANCELLED else {}),
    }
    guesses = set()
    if data.form_submission is None:
        guesses.add("participants")
        if data.conversation is None or "answers" not in data.conversation.model_fields_set:
            guesses.add("answers")
    if customer.sources is _NOBODY_SOURCES:
        guesses.add("customer_email")
    return untold(data, booking, sources) | guesses
