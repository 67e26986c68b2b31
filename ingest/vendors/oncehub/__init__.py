"""OnceHub (API v2): every booking event carries the whole booking, in nearly the form the REST side has it.

Signature: https://help.oncehub.com/developers/webhooks/webhook-signatures/
Payloads:  https://help.oncehub.com/developers/api/
"""

from datetime import UTC, datetime
from typing import Annotated, ClassVar

from pydantic import Field, SecretStr

from ingest.booking import Booking
from ingest.event import Event, digest
from ingest.signing import timestamped_hmac, timestamped_signature, which_matches
from ingest.vendors import Account, AccountSettings, Delivery, Proof, Reading, VerifiedDelivery
from ingest.vendors.account import EVENTS, Words
from ingest.vendors.fields import OBJECT, Id, Instant, Payload, Text, read_json
from ingest.vendors.oncehub.booking import Booked, booking_of_record, booking_of_webhook

SIGNATURE = "oncehub-signature"
# The field of a webhook object that its deliveries are signed with: the first in the API's reference, the second in its introduction.
SECRET_NAMES = ("secret", "signing_secret")

# All there are but the chatbot's. The composite `booking` may not stand for those that were added after it.
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


class OncehubSettings(AccountSettings):
    """The REST side has one key."""

    rest_credentials: ClassVar[tuple[tuple[str, ...], ...]] = (("api_key",),)

    api_key: SecretStr | None = Field(None, description="API key.")
    events: Words = Field(_BOOKING_EVENTS, description=EVENTS)


class _Subject(Payload):
    """Any `data`, of events we know and of those OnceHub adds later."""

    id: Text = None


class _Envelope(Payload):
    id: Text = None
    type: Id
    creation_time: Instant
    data: Annotated[_Subject | None, OBJECT] = None


class _BookingEnvelope(Payload):
    data: Booked


class Oncehub(Account[OncehubSettings]):
    """Signed with HMAC-SHA256 over `t.body`. Only v2 webhooks are: what a v1 webhook sends is never authentic."""

    vendor = "oncehub"
    settings_model = OncehubSettings

    def authenticate(self, delivery: Delivery) -> Proof:
        sent, signatures = timestamped_signature(delivery.headers.one(SIGNATURE), "s")
        expected = [timestamped_hmac(secret, sent, delivery.body) for secret in self.settings.live_secrets()]
        return Proof(which_matches(signatures, expected), datetime.fromtimestamp(int(sent), UTC))

    def read(self, delivery: VerifiedDelivery) -> Reading:
        envelope = read_json(_Envelope, delivery.body)
        return Reading(
            id=envelope.id or digest(self.source, delivery.body),
            type=envelope.type,
            subject=(envelope.data.id if envelope.data else None) or self.source,
            time=envelope.creation_time,
        )

    def booking_of_webhook(self, event: Event) -> Booking | None:
        """The family decides, not a list: `booking.reassigned` was added years later, with the same `data` as its sisters."""
        if not event.type.startswith("oncehub.booking."):
            return None
        reassigned = event.type == "oncehub.booking.reassigned"
        return booking_of_webhook(read_json(_BookingEnvelope, event.data).data, reassigned=reassigned)

    def booking_of_record(self, data: bytes) -> Booking:
        """A booking of GET /bookings; with `expand=owner` it also has the name of its staff."""
        return booking_of_record(read_json(Booked, data))


def sign(secret: str, body: bytes, at: datetime) -> dict[str, str]:
    """The headers OnceHub would send; for the simulator and tests."""
    sent = str(int(at.timestamp()))
    return {SIGNATURE: f"t={sent},s={timestamped_hmac(secret, sent, body)}"}


ACCOUNT = Oncehub
