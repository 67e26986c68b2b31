"""The mapping of Calendly's invitee to a booking.

The invitee is the same object in webhooks and in REST, except that only webhooks include `scheduled_event`,
the meeting that several invitees may share.
https://developer.calendly.com/api-docs/calendly-api/scheduled-events
"""

import re
import unicodedata
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Annotated

from pydantic import BeforeValidator

from ingest.booking import Answer, Booking, BookingStatus
from ingest.times import format_instant
from ingest.vendors.fields import (
    ABSENT,
    OBJECT,
    OBJECTS,
    AnyText,
    Id,
    Instant,
    MaybeAmount,
    MaybeFlag,
    MaybeInstant,
    Parameters,
    Payload,
    Sources,
    Text,
    Word,
    latest,
    objects_or,
    plain_word,
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

# E.164 allows 15 digits. The shortest national numbers that people enter have 7.
_MOST_DIGITS = 15
_FEWEST_DIGITS = 7
# With fewer digits there would be too few after the country code.
_FEWEST_INTERNATIONAL = 8
_INTERNATIONAL_PREFIXES = ("+", "(+", "tel:+")

_NUMBER = re.compile(
    r"(?:tel:)?(?P<plus>\(?\+?)(?P<number>[\d\s().\-/\u2010-\u2015]+)(?:;?(?:ext\.?=?|extension|x|#)\s*\d{1,6})?",
    re.IGNORECASE,
)
_TELEPHONE = re.compile(
    r"phone|\bmobil|\bcell|\bcelular|\btel\b|t[eé]l[eéè]f|\btelem[oó]vel|\bm[oó]vil|\bportable\b|\bhandy"
    r"|\bgsm\b|\bsms\b|whatsapp|rufnummer|\bcontact n(?:umber|o)\b|\bnumber\b.*\b(?:reach|call)\b"
    r"|puhelin|телефон|мобильн|τηλ[εέ]φ|電話|电话|手机|携帯|전화|هاتف|טלפון|โทร",
    re.IGNORECASE,
)


class _Cancellation(Payload):
    reason: Text = None
    canceler_type: Text = None
    created_at: MaybeInstant = None


class _NoShow(Payload):
    created_at: MaybeInstant = None


class _Reconfirmation(Payload):
    confirmed_at: MaybeInstant = None


class _Payment(Payload):
    amount: MaybeAmount = None
    currency: Text = None
    successful: MaybeFlag = None


class _QuestionAndAnswer(Payload):
    question: Text = None
    answer: AnyText = None


class _Location(Payload):
    type: Text = None
    location: Text = None
    join_url: Text = None

    def text(self) -> str | None:
        return self.join_url or self.location or self.type

    def link(self) -> str | None:
        """Return the link of the video call, which hosts and invitees may also have entered as free text."""
        return web_link(self.join_url, self.location if self.type in _FREE_TEXT_LOCATIONS else None)


class _Host(Payload):
    user: Text = None
    user_name: Text = None
    user_email: Text = None


class _Guest(Payload):
    email: Text = None


class ScheduledEvent(Payload):
    """The meeting that invitees share. It is the same object in webhooks and in REST."""

    uri: Text = None
    name: Text = None
    start_time: MaybeInstant = None
    end_time: MaybeInstant = None
    event_type: Text = None
    location: Annotated[_Location | None, OBJECT] = None
    event_memberships: Annotated[tuple[_Host, ...], objects_or("user")] = ()
    event_guests: Annotated[tuple[_Guest, ...], objects_or("email")] = ()

    def staff(self) -> tuple[str, ...]:
        """Return each host's URI once, because Calendly may list a host twice."""
        return unique(host.user for host in self.event_memberships)

    def guests(self) -> tuple[str, ...]:
        """Return the e-mail addresses of the guests whom invitees added."""
        return unique(guest.email for guest in self.event_guests)

    def place_text(self) -> str | None:
        """Return the link, the address or the type of the location."""
        return self.location.text() if self.location else None


def _event(event: object) -> object:
    """Return the value of `scheduled_event` as an event.

    A URI becomes an event that has only this `uri`. Any other value becomes an event without fields.
    """
    if isinstance(event, str) and event:
        return {"uri": event}
    return event if isinstance(event, dict | Payload) else {}


class InviteeChange(Payload):
    """What identifies the state of one person's booking: whose it is, and when it changed."""

    uri: Id
    created_at: Instant
    updated_at: Instant
    cancellation: Annotated[_Cancellation | None, OBJECT] = None
    no_show: Annotated[_NoShow | None, ABSENT] = None
    reconfirmation: Annotated[_Reconfirmation | None, OBJECT] = None

    def changed_at(self) -> datetime:
        """Return the time of the last change.

        A no-show does not change `updated_at`, so the times of the invitee's parts are considered too.
        """
        if not (self.cancellation or self.no_show or self.reconfirmation):
            return self.updated_at
        return latest(
            self.updated_at,
            self.cancellation.created_at if self.cancellation else None,
            self.no_show.created_at if self.no_show else None,
            self.reconfirmation.confirmed_at if self.reconfirmation else None,
        )


class Invitee(InviteeChange):
    """One person's booking."""

    status: Word = None
    event: Text = None
    name: Text = None
    first_name: Text = None
    last_name: Text = None
    email: Text = None
    timezone: Text = None
    text_reminder_number: Text = None
    questions_and_answers: Annotated[tuple[_QuestionAndAnswer, ...], OBJECTS] = ()
    tracking: Parameters = None
    rescheduled: MaybeFlag = None
    old_invitee: Text = None
    new_invitee: Text = None
    payment: Annotated[_Payment | None, ABSENT] = None
    scheduled_event: Annotated[ScheduledEvent, BeforeValidator(_event)] = ScheduledEvent()

    def full_name(self) -> str | None:
        """Return `name`, or first and last name where the event type asks for them separately."""
        return self.name or " ".join(filter(None, (self.first_name, self.last_name))) or None

    def answers(self) -> tuple[Answer, ...]:
        """Return the booking form's questions with their answers."""
        pairs = ((entry.question, entry.answer) for entry in self.questions_and_answers)
        return tuple(Answer(question, answer) for question, answer in pairs if question or answer)

    def phone(self) -> str | None:
        """Return the invitee's phone number.

        It is the number for text messages, else one from the answers, else the number that the host calls.
        """
        location = self.scheduled_event.location
        call_number = location.location if location and location.type == "outbound_call" else None
        return self.text_reminder_number or answered_phone(self.answers()) or call_number

    def paid(self) -> tuple[Decimal | None, str | None]:
        """Return the amount and the currency that were paid; both are None where nothing was paid."""
        if self.payment is None or not self.payment.successful or self.payment.amount is None:
            return None, None
        return self.payment.amount, self.payment.currency

    def booking_status(self) -> BookingStatus:
        """Return the invitee's status, which may differ from that of the event's other invitees."""
        if self.status == "canceled" and (
            self.rescheduled or (self.rescheduled is None and self.new_invitee)
        ):
            return BookingStatus.RESCHEDULED
        if self.status == "active" and self.no_show:
            return BookingStatus.NO_SHOW
        return _STATUSES.get(self.status or "", BookingStatus.UNKNOWN)


def booking_of_invitee(invitee: Invitee, changed_at: datetime) -> Booking:
    """Map an invitee to its booking, whose version is the time of its last change."""
    event = invitee.scheduled_event
    cancellation = invitee.cancellation or _Cancellation()
    price, currency = invitee.paid()
    booking = Booking(
        booking_id=invitee.uri,
        version=format_instant(changed_at),
        status=invitee.booking_status(),
        group_id=event.uri or invitee.event,
        starts_at=event.start_time,
        ends_at=event.end_time,
        timezone=invitee.timezone,
        created_at=invitee.created_at,
        updated_at=invitee.updated_at,
        service_id=event.event_type,
        service_name=event.name,
        staff=event.staff(),
        staff_name=next((host.user_name or host.user_email for host in event.event_memberships), None),
        location=event.place_text(),
        customer_name=invitee.full_name(),
        customer_email=invitee.email,
        customer_phone=invitee.phone(),
        participants=1,  # guests do not count: Calendly's own counter counts invitees
        price=price,
        currency=currency,
        cancel_reason=cancellation.reason,
        cancelled_by=_CANCELERS.get(plain_word(cancellation.canceler_type or ""), cancellation.canceler_type),
        cancelled_at=cancellation.created_at,
        rescheduled_from=invitee.old_invitee,
        rescheduled_to=invitee.new_invitee,
        answers=invitee.answers(),
        tracking=invitee.tracking,
        guests=event.guests(),
        conference_url=event.location.link() if event.location else None,
    )
    booking.untold = _untold(invitee, booking)
    return booking


def _untold(invitee: Invitee, booking: Booking) -> frozenset[str]:
    """Return the columns that this message says nothing about.

    Everybody who books has a name. The null that old forms of cancellations have there does not clear it.
    """
    name_column = frozenset() if booking.customer_name else frozenset({"customer_name"})
    return name_column | untold(
        invitee, booking, _SOURCES if invitee.status == "active" else _SOURCES_OF_CANCELED
    )


def answered_phone(answers: Iterable[Answer]) -> str | None:
    """Return the first answer that is a telephone number and nothing else, or None.

    An answer has no type: only event types say that a question is of type `phone_number`. Calendly writes
    numbers from its telephone field in international form (`+1 234-567-8910`), so a number in that form
    counts under any question. Numbers of other kinds may look like national telephone numbers, so these only
    count where the question asks for a telephone number, and are preferred there.
    https://developer.calendly.com/api-docs/calendly-api/scheduled-events
    """
    texts = [(answer.question or "", answer.answer) for answer in answers if answer.answer]
    requested_numbers = (
        text for question, text in texts if _asks_for_telephone(question) and _is_number(text, _FEWEST_DIGITS)
    )
    international_numbers = (
        text
        for _, text in texts
        if _plain(text).startswith(_INTERNATIONAL_PREFIXES) and _is_number(text, _FEWEST_INTERNATIONAL)
    )
    return next(requested_numbers, None) or next(international_numbers, None)


@lru_cache(1000)  # a booking form asks everybody the same
def _asks_for_telephone(question: str) -> bool:
    return bool(_TELEPHONE.search(question))


def _is_number(text: str, fewest: int) -> bool:
    match = _NUMBER.fullmatch(_plain(text))
    return match is not None and fewest <= sum(map(str.isdecimal, match["number"])) <= _MOST_DIGITS


def _plain(text: str) -> str:
    """Return text in lower case, with full-width characters as ordinary ones and without invisible ones.

    Numbers that are copied from address books may contain invisible characters.
    """
    visible = (char for char in unicodedata.normalize("NFKC", text) if unicodedata.category(char) != "Cf")
    return "".join(visible).strip().lower()
