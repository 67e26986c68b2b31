"""Acme, a vendor that does not exist, as the smallest example of a vendor.

It only has webhooks, and no settings of its own. A real vendor has a link to its documentation beside each
rule.
"""

from datetime import datetime

from msgspec import UNSET, Struct

from ingest.booking import Booking, BookingStatus
from ingest.event import Event
from ingest.signing import timestamped_candidates, timestamped_header, which_matches
from ingest.times import format_instant
from ingest.vendors import Account, AccountSettings, Delivery, EventIdentity, Proof, VerifiedDelivery
from ingest.vendors.fields import (
    read_fields,
    read_id,
    read_instant,
    read_maybe_instant,
    read_text,
    read_word,
)

SIGNATURE = "acme-signature"

_STATUSES = {"booked": BookingStatus.CONFIRMED, "canceled": BookingStatus.CANCELLED}


class _Booking(Struct):
    id: object = UNSET
    updated_at: object = UNSET
    status: object = UNSET
    starts_at: object = UNSET
    email: object = UNSET

    def changed_at(self) -> datetime:
        """Return the time of the last change. Raises PayloadError."""
        return read_instant("booking.updated_at", self.updated_at)


class _Envelope(Struct):
    booking: _Booking
    id: object = UNSET
    type: object = UNSET


class Acme(Account[AccountSettings]):
    """An account of Acme. Deliveries are signed with HMAC-SHA256 over time and body."""

    vendor = "acme"
    title = "Acme"

    def authenticate(self, delivery: Delivery) -> Proof:
        header = delivery.headers.get_single(SIGNATURE)
        sent_at, signatures, expected = timestamped_candidates(
            header, "v1", delivery.body, self.settings.live_secrets()
        )
        return Proof(which_matches(signatures, expected), sent_at)

    def identify(self, delivery: VerifiedDelivery) -> EventIdentity:
        envelope = read_fields(_Envelope, delivery.body)
        booking = envelope.booking
        return EventIdentity(
            id=read_id("id", envelope.id),
            type=read_id("type", envelope.type),
            subject=read_id("booking.id", booking.id),
            time=booking.changed_at(),
        )

    def booking_of_webhook(self, event: Event) -> Booking | None:
        booking = read_fields(_Envelope, event.data).booking
        changed_at = booking.changed_at()
        return Booking(
            booking_id=read_id("booking.id", booking.id),
            version=format_instant(changed_at),
            status=_STATUSES.get(read_word(booking.status) or "", BookingStatus.UNKNOWN),
            starts_at=read_maybe_instant("booking.starts_at", booking.starts_at),
            updated_at=changed_at,
            customer_email=read_text(booking.email),
        )


def sign(secret: str, body: bytes, at: datetime) -> dict[str, str]:
    """Return the headers that Acme would send."""
    return {SIGNATURE: timestamped_header(secret, "v1", body, at)}


ACCOUNT = Acme
