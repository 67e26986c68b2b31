"""Acme, a vendor that does not exist, as the smallest example of a vendor.

It only has webhooks, and no settings of its own. A real vendor has a link to its documentation beside each
rule.
"""

from datetime import datetime

from ingest.booking import Booking, BookingStatus
from ingest.event import Event
from ingest.signing import timestamped_candidates, timestamped_header, which_matches
from ingest.times import format_instant
from ingest.vendors import Account, AccountSettings, Delivery, EventIdentity, Proof, VerifiedDelivery
from ingest.vendors.fields import Id, Instant, MaybeInstant, Payload, Text, Word, read_json

SIGNATURE = "acme-signature"

_STATUSES = {"booked": BookingStatus.CONFIRMED, "canceled": BookingStatus.CANCELLED}


class _Booking(Payload):
    id: Id
    updated_at: Instant
    status: Word = None
    starts_at: MaybeInstant = None
    email: Text = None


class _Envelope(Payload):
    id: Id
    type: Id
    booking: _Booking


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
        envelope = read_json(_Envelope, delivery.body)
        booking = envelope.booking
        return EventIdentity(envelope.id, envelope.type, booking.id, booking.updated_at)

    def booking_of_webhook(self, event: Event) -> Booking | None:
        booking = read_json(_Envelope, event.data).booking
        return Booking(
            booking_id=booking.id,
            version=format_instant(booking.updated_at),
            status=_STATUSES.get(booking.status or "", BookingStatus.UNKNOWN),
            starts_at=booking.starts_at,
            updated_at=booking.updated_at,
            customer_email=booking.email,
        )


def sign(secret: str, body: bytes, at: datetime) -> dict[str, str]:
    """Return the headers that Acme would send."""
    return {SIGNATURE: timestamped_header(secret, "v1", body, at)}


ACCOUNT = Acme
