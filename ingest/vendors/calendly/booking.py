"""The mapping of Calendly's invitee to a booking.

The invitee is the same object in webhooks and in REST, except that only webhooks include `scheduled_event`,
the meeting that several invitees may share.
https://developer.calendly.com/api-docs/calendly-api/scheduled-events
"""

from datetime import datetime
from decimal import Decimal

from msgspec import UNSET, Struct

from ingest.booking import Answer, Booking, BookingStatus
from ingest.times import format_instant
from ingest.vendors.calendly.telephones import answered_phone
from ingest.vendors.fields import (
    MaybeList,
    MaybeObject,
    Sources,
    as_objects,
    latest,
    plain_word,
    read_any_text,
    read_id,
    read_instant,
    read_maybe_amount,
    read_maybe_flag,
    read_maybe_instant,
    read_maybe_part,
    read_part,
    read_parts,
    read_text,
    read_texts_by_name,
    read_word,
    unique,
    untold,
    web_link,
)

_STATUSES = {"active": BookingStatus.CONFIRMED, "canceled": BookingStatus.CANCELLED}
# Types of locations that hosts and invitees describe in free text.
_FREE_TEXT_LOCATIONS = {"custom", "ask_invitee"}
_CANCELERS = {"invitee": "customer", "host": "host"}

_SOURCES: Sources = {
    "status": ("status",),
    "starts_at": ("scheduled_event.start_time",),
    "ends_at": ("scheduled_event.end_time",),
    "group_id": ("event", "scheduled_event.uri"),
    "timezone": ("timezone",),
    "service_id": ("scheduled_event.event_type",),
    "service_name": ("scheduled_event.name",),
    "staff": ("scheduled_event.event_memberships.user",),
    "staff_name": (
        "scheduled_event.event_memberships.user_name",
        "scheduled_event.event_memberships.user_email",
    ),
    "location": ("scheduled_event.location",),
    "conference_url": ("scheduled_event.location",),
    "guests": ("scheduled_event.event_guests",),
    "customer_email": ("email",),
    "customer_phone": ("text_reminder_number", "questions_and_answers", "scheduled_event.location"),
    "price": ("payment",),
    "currency": ("payment",),
    "rescheduled_from": ("old_invitee",),
    "rescheduled_to": ("new_invitee",),
    "answers": ("questions_and_answers",),
    "tracking": ("tracking",),
}
# Only a cancelled invitee has the field `cancellation`. Where an active one lacks it, nothing is missing.
_SOURCES_OF_CANCELED: Sources = {
    **_SOURCES,
    "cancel_reason": ("cancellation.reason",),
    "cancelled_by": ("cancellation.canceler_type",),
    "cancelled_at": ("cancellation.created_at",),
}


class _Cancellation(Struct):
    reason: object = UNSET
    canceler_type: object = UNSET
    created_at: object = UNSET


class _NoShow(Struct):
    created_at: object = UNSET


class _Reconfirmation(Struct):
    confirmed_at: object = UNSET


class _Payment(Struct):
    amount: object = UNSET
    currency: object = UNSET
    successful: object = UNSET


class _QuestionAndAnswer(Struct):
    question: object = UNSET
    answer: object = UNSET


class _Location(Struct):
    type: object = UNSET
    location: object = UNSET
    join_url: object = UNSET

    def text(self) -> str | None:
        return read_text(self.join_url) or read_text(self.location) or read_text(self.type)

    def link(self) -> str | None:
        """Return the link of the video call, which hosts and invitees may also have entered as free text."""
        free_text = read_text(self.location) if read_text(self.type) in _FREE_TEXT_LOCATIONS else None
        return web_link(read_text(self.join_url), free_text)

    def call_number(self) -> str | None:
        """Return the number that the host calls."""
        return read_text(self.location) if read_text(self.type) == "outbound_call" else None


class _Host(Struct):
    user: object = UNSET
    user_name: object = UNSET
    user_email: object = UNSET

    def name(self) -> str | None:
        return read_text(self.user_name) or read_text(self.user_email)


class _Guest(Struct):
    email: object = UNSET


class ScheduledEvent(Struct):
    """The meeting that invitees share. It is the same object in webhooks and in REST."""

    uri: object = UNSET
    name: object = UNSET
    start_time: object = UNSET
    end_time: object = UNSET
    event_type: object = UNSET
    location: MaybeObject[_Location] = UNSET
    event_memberships: MaybeList[_Host] = UNSET
    event_guests: MaybeList[_Guest] = UNSET

    def __post_init__(self) -> None:
        """Make objects of hosts who are only URIs, and of guests who are only addresses."""
        self.event_memberships = as_objects(_Host, self.event_memberships, "user")
        self.event_guests = as_objects(_Guest, self.event_guests, "email")

    def starts_at(self) -> datetime | None:
        """Return the start. Raises PayloadError."""
        return read_maybe_instant("scheduled_event.start_time", self.start_time)

    def ends_at(self) -> datetime | None:
        """Return the end. Raises PayloadError."""
        return read_maybe_instant("scheduled_event.end_time", self.end_time)

    def staff(self) -> tuple[str, ...]:
        """Return each host's URI once, because Calendly may list a host twice."""
        return unique([read_text(host.user) for host in read_parts(_Host, self.event_memberships)])

    def host_name(self) -> str | None:
        """Return the name of the first host."""
        return next((host.name() for host in read_parts(_Host, self.event_memberships)), None)

    def guests(self) -> tuple[str, ...]:
        """Return the e-mail addresses of the guests whom invitees added."""
        guests = read_parts(_Guest, self.event_guests)
        return unique([read_text(guest.email) for guest in guests])

    def place(self) -> _Location:
        """Return the location, which has no fields where the message has none."""
        return read_part(_Location, self.location) or _Location()


class InviteeChange(Struct):
    """What identifies the state of one person's booking: whose it is, and when it changed."""

    uri: object = UNSET
    created_at: object = UNSET
    updated_at: object = UNSET
    cancellation: MaybeObject[_Cancellation] = UNSET
    no_show: MaybeObject[_NoShow] = UNSET
    reconfirmation: MaybeObject[_Reconfirmation] = UNSET

    def booking_id(self) -> str:
        """Return the invitee's URI. Raises PayloadError."""
        return read_id("uri", self.uri)

    def cancelled_at(self) -> datetime | None:
        """Return when the invitee was cancelled. Raises PayloadError."""
        cancellation = read_part(_Cancellation, self.cancellation) or _Cancellation()
        return read_maybe_instant("cancellation.created_at", cancellation.created_at)

    def is_no_show(self) -> bool:
        """Return whether the invitee did not come. Raises PayloadError."""
        return read_maybe_part("no_show", _NoShow, self.no_show) is not None

    def changed_at(self) -> datetime:
        """Return the time of the last change. Raises PayloadError.

        A no-show does not change `updated_at`, so the times of the invitee's parts are considered too.
        """
        updated_at = read_instant("updated_at", self.updated_at)
        if not (self.cancellation or self.no_show or self.reconfirmation):
            return updated_at
        no_show = read_maybe_part("no_show", _NoShow, self.no_show) or _NoShow()
        reconfirmation = read_part(_Reconfirmation, self.reconfirmation) or _Reconfirmation()
        return latest(
            updated_at,
            self.cancelled_at(),
            read_maybe_instant("no_show.created_at", no_show.created_at),
            read_maybe_instant("reconfirmation.confirmed_at", reconfirmation.confirmed_at),
        )


class Invitee(InviteeChange):
    """One person's booking."""

    status: object = UNSET
    event: object = UNSET
    name: object = UNSET
    first_name: object = UNSET
    last_name: object = UNSET
    email: object = UNSET
    timezone: object = UNSET
    text_reminder_number: object = UNSET
    questions_and_answers: MaybeList[_QuestionAndAnswer] = UNSET
    tracking: object = UNSET
    rescheduled: object = UNSET
    old_invitee: object = UNSET
    new_invitee: object = UNSET
    payment: MaybeObject[_Payment] = UNSET
    scheduled_event: MaybeObject[ScheduledEvent] = UNSET

    def meeting(self) -> ScheduledEvent:
        """Return the meeting, of which the message may have only the URI."""
        event = self.scheduled_event
        if isinstance(event, ScheduledEvent):
            return event
        return ScheduledEvent(uri=event if event and isinstance(event, str) else UNSET)

    def full_name(self) -> str | None:
        """Return `name`, or first and last name where the event type asks for them separately."""
        parts = read_text(self.first_name), read_text(self.last_name)
        return read_text(self.name) or " ".join(filter(None, parts)) or None

    def answers(self) -> tuple[Answer, ...]:
        """Return the booking form's questions with their answers."""
        entries = read_parts(_QuestionAndAnswer, self.questions_and_answers)
        pairs = ((read_text(entry.question), read_any_text(entry.answer)) for entry in entries)
        return tuple(Answer(question, answer) for question, answer in pairs if question or answer)

    def paid(self) -> tuple[Decimal | None, str | None]:
        """Return the amount and the currency that were paid; both are None where nothing was paid.

        Raises PayloadError.
        """
        payment = read_maybe_part("payment", _Payment, self.payment)
        if payment is None:
            return None, None
        amount = read_maybe_amount("payment.amount", payment.amount)
        is_paid = read_maybe_flag("payment.successful", payment.successful) and amount is not None
        return (amount, read_text(payment.currency)) if is_paid else (None, None)

    def booking_status(self) -> BookingStatus:
        """Return the invitee's status, which may differ from that of the event's other invitees.

        Raises PayloadError.
        """
        status, is_no_show = read_word(self.status), self.is_no_show()
        is_rescheduled = read_maybe_flag("rescheduled", self.rescheduled)
        if status == "canceled" and (
            is_rescheduled or (is_rescheduled is None and read_text(self.new_invitee))
        ):
            return BookingStatus.RESCHEDULED
        if status == "active" and is_no_show:
            return BookingStatus.NO_SHOW
        return _STATUSES.get(status or "", BookingStatus.UNKNOWN)


def booking_of_invitee(invitee: Invitee, changed_at: datetime) -> Booking:
    """Map an invitee to its booking, whose version is the time of its last change. Raises PayloadError."""
    invitee.scheduled_event = event = invitee.meeting()
    place = event.place()
    cancellation = read_part(_Cancellation, invitee.cancellation) or _Cancellation()
    canceler = read_text(cancellation.canceler_type)
    price, currency = invitee.paid()
    answers = invitee.answers()
    booking = Booking(
        booking_id=invitee.booking_id(),
        version=format_instant(changed_at),
        status=invitee.booking_status(),
        group_id=read_text(event.uri) or read_text(invitee.event),
        starts_at=event.starts_at(),
        ends_at=event.ends_at(),
        timezone=read_text(invitee.timezone),
        created_at=read_instant("created_at", invitee.created_at),
        updated_at=read_instant("updated_at", invitee.updated_at),
        service_id=read_text(event.event_type),
        service_name=read_text(event.name),
        staff=event.staff(),
        staff_name=event.host_name(),
        location=place.text(),
        customer_name=invitee.full_name(),
        customer_email=read_text(invitee.email),
        # The number for text messages, else one from the answers, else the number that the host calls.
        customer_phone=(
            read_text(invitee.text_reminder_number) or answered_phone(answers) or place.call_number()
        ),
        participants=1,  # guests do not count: Calendly's own counter counts invitees
        price=price,
        currency=currency,
        cancel_reason=read_text(cancellation.reason),
        cancelled_by=_CANCELERS.get(plain_word(canceler or ""), canceler),
        cancelled_at=invitee.cancelled_at(),
        rescheduled_from=read_text(invitee.old_invitee),
        rescheduled_to=read_text(invitee.new_invitee),
        answers=answers,
        tracking=read_texts_by_name(invitee.tracking),
        guests=event.guests(),
        conference_url=place.link(),
    )
    booking.untold = _untold(invitee, booking)
    return booking


def _untold(invitee: Invitee, booking: Booking) -> frozenset[str]:
    """Return the columns that this message says nothing about.

    Everybody who books has a name. The null that old forms of cancellations have there does not clear it.
    """
    name_column = frozenset() if booking.customer_name else frozenset({"customer_name"})
    return name_column | untold(
        invitee,
        booking,
        _SOURCES if read_word(invitee.status) == "active" else _SOURCES_OF_CANCELED,
    )
