"""The vendor OnceHub (API v2), with the mapping of its bookings to ours.

Every booking event contains the whole booking, in nearly the same form as the REST side.

Signature: https://help.oncehub.com/developers/webhooks/webhook-signatures/
Payloads:  https://help.oncehub.com/developers/api/
"""

from datetime import datetime
from typing import ClassVar

import orjson
from msgspec import UNSET, Struct
from pydantic import Field, SecretStr

from ingest.booking import Booking, BookingStatus
from ingest.event import Event, digest
from ingest.signing import timestamped_candidates, timestamped_header, which_matches
from ingest.times import format_instant
from ingest.vendors import (
    TEST_EVENT,
    Account,
    AccountSettings,
    Delivery,
    EventIdentity,
    Example,
    Proof,
    VerifiedDelivery,
)
from ingest.vendors.account_settings import EVENTS_DESCRIPTION, Words
from ingest.vendors.delivery import Headers
from ingest.vendors.fields import (
    NoObject,
    Sources,
    plain_word,
    read_fields,
    read_id,
    read_instant,
    read_maybe_instant,
    read_part,
    read_text,
    read_word,
    unique,
    untold,
    web_link,
)
from ingest.vendors.oncehub.booking import (
    NOBODY_SOURCES,
    Booked,
    Change,
    Customer,
)

SIGNATURE = "oncehub-signature"
# Names of the field with a webhook's secret: that of the API's reference, and that of its introduction.
SECRET_NAMES = ("secret", "signing_secret")

# All events but the chatbot's. The composite event `booking` may not include events that were added after it.
_BOOKING_EVENTS = (
    "booking.scheduled",
    "booking.rescheduled",
    "booking.reassigned",
    "booking.canceled_then_rescheduled",
    "booking.canceled_reschedule_requested",
    "booking.canceled",
    "booking.completed",
    "booking.no_show",
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


class OncehubSettings(AccountSettings):
    """The settings of a OnceHub account. The REST side needs the API key."""

    rest_credentials: ClassVar[tuple[tuple[str, ...], ...]] = (("api_key",),)

    api_key: SecretStr | None = Field(None, description="API key.")
    events: Words = Field(_BOOKING_EVENTS, description=EVENTS_DESCRIPTION)


class _Subject(Struct):
    """The id in the `data` of any event, including events that OnceHub adds later."""

    id: object = None


class _Envelope(Struct):
    """The fields that identify any event."""

    type: str
    creation_time: object
    id: object = None
    data: _Subject | NoObject = None


class _BookingEnvelope(Struct):
    data: Booked


class Oncehub(Account[OncehubSettings]):
    """An account of OnceHub.

    Deliveries of v2 webhooks are signed with HMAC-SHA256 over `t.body`. Deliveries of v1 webhooks are not
    signed, and so never authentic.
    """

    vendor = "oncehub"
    title = "OnceHub"
    rank = 2
    example = Example(
        account="support",
        secrets=(
            'webhook_secrets = ["the secret OnceHub shows when the webhook is created"]',
            'api_key = "an API key"',
        ),
    )
    settings_model = OncehubSettings

    def authenticate(self, delivery: Delivery) -> Proof:
        header = delivery.headers.get_single(SIGNATURE)
        sent_at, signatures, expected = timestamped_candidates(header, "s", delivery.body, self.live_secrets)
        return Proof(which_matches(signatures, expected), sent_at)

    def identify(self, delivery: VerifiedDelivery) -> EventIdentity:
        envelope = read_fields(_Envelope, delivery.body)
        subject = read_text(envelope.data.id) if isinstance(envelope.data, _Subject) else None
        return EventIdentity(
            id=read_text(envelope.id) or digest(self.source, delivery.body),
            type=read_id("type", envelope.type),
            subject=subject or self.source,
            time=read_instant("creation_time", envelope.creation_time),
        )

    def booking_of_webhook(self, event: Event) -> Booking | None:
        """Map an event whose type begins with `booking.` to its booking; return None for other types.

        OnceHub adds such types, and their `data` has the same form.
        """
        if not event.type.startswith("oncehub.booking."):
            return None
        booking = _booking_of(read_fields(_BookingEnvelope, event.data).data)
        # Webhooks leave out `utm_params`, so a null there does not clear it.
        untold_columns = booking.untold if booking.tracking else booking.untold | {"tracking"}
        if event.type == "oncehub.booking.reassigned":
            untold_columns -= {"staff_name"}  # the name of the earlier owner would be wrong
        booking.untold = untold_columns
        return booking

    def booking_of_record(self, data: bytes) -> Booking:
        """Map a booking of GET /bookings. With `expand=owner` it also has the name of its staff."""
        return _booking_of(read_fields(Booked, data))

    def compose_test(self, secret: str, name: str, at: datetime) -> Delivery:
        body = orjson.dumps(
            {
                "id": name,
                "object": "event",
                "type": TEST_EVENT,
                "creation_time": format_instant(at),
                "data": {"id": name},
            }
        )
        return Delivery("", Headers.of(sign(secret, body, at).items()), body, at)


def sign(secret: str, body: bytes, at: datetime) -> dict[str, str]:
    """Return the headers that OnceHub would send, for the simulator and tests."""
    return {SIGNATURE: timestamped_header(secret, "s", body, at)}


def _booking_of(data: Booked) -> Booking:
    """Map a booking to ours. Raises PayloadError."""
    created_at = read_instant("creation_time", data.creation_time)
    changed_at = read_maybe_instant("last_updated_time", data.last_updated_time) or created_at
    status = _STATUSES.get(read_word(data.status) or "", BookingStatus.UNKNOWN)
    # The same object has the reason why a booking was rescheduled, which is no reason of a cancellation.
    is_cancelled = status is BookingStatus.CANCELLED
    cancellation = (is_cancelled and read_part(Change, data.cancel_reschedule_information)) or Change()
    actor = read_text(cancellation.actioned_by)
    join_url, description = data.join_url(), read_text(data.location_description)
    starts_at = data.starts_at()
    host, customer, guests = data.host(), data.customer(), data.guests()
    staff, (price, currency) = read_text(host.id), data.price()
    booking = Booking(
        booking_id=read_id("id", data.id),
        version=format_instant(changed_at),
        status=status,
        starts_at=starts_at,
        ends_at=data.ends_at(starts_at),
        timezone=read_text(data.customer_timezone),
        created_at=created_at,
        updated_at=changed_at,
        service_id=data.service_id(),
        service_name=read_text(data.subject),
        staff=(staff,) if staff else (),
        staff_name=host.name(),
        location=join_url or description,
        customer_id=data.customer_id(),
        customer_name=customer.name,
        customer_email=customer.email,
        customer_phone=customer.phone,
        participants=data.participants(customer),
        price=price,
        currency=currency,
        cancel_reason=read_text(cancellation.reason),
        cancelled_by=_ACTORS.get(plain_word(actor or ""), actor),
        rescheduled_from=read_text(data.rescheduled_booking_id),
        answers=data.answers(),
        tracking=data.tracking(),
        guests=unique(guests or ()),
        conference_url=web_link(join_url, description),
    )
    booking.untold = _untold(data, booking, customer)
    return booking


def _untold(data: Booked, booking: Booking, customer: Customer) -> frozenset[str]:
    """Return the columns that this message says nothing about, or of which it only has a guess.

    Any other message corrects a guess.
    """
    canceled_sources = _CANCELED_SOURCES if booking.status is BookingStatus.CANCELLED else {}
    guesses = set()
    if data.read_form() is None:
        guesses.add("participants")
        conversation = data.read_conversation()
        if conversation is None or conversation.answers is UNSET:
            guesses.add("answers")
    if customer.sources is NOBODY_SOURCES:
        guesses.add("customer_email")
    return untold(data, booking, _SOURCES, customer.sources, canceled_sources) | guesses


ACCOUNT = Oncehub
