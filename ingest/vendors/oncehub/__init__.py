"""The vendor OnceHub (API v2).

Every booking event contains the whole booking, in nearly the same form as the REST side.

Signature: https://help.oncehub.com/developers/webhooks/webhook-signatures/
Payloads:  https://help.oncehub.com/developers/api/
"""

from datetime import UTC, datetime
from typing import Annotated, ClassVar

import orjson
from pydantic import Field, SecretStr

from ingest.booking import Booking
from ingest.event import Event, digest
from ingest.instant import format_instant
from ingest.signing import timestamped_hmac, timestamped_signature, which_matches
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
from ingest.vendors.fields import OBJECT, Id, Instant, Payload, Text, read_json
from ingest.vendors.oncehub.booking import Booked, booking_of_record, booking_of_webhook

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


class OncehubSettings(AccountSettings):
    """The settings of a OnceHub account. The REST side needs the API key."""

    rest_credentials: ClassVar[tuple[tuple[str, ...], ...]] = (("api_key",),)

    api_key: SecretStr | None = Field(None, description="API key.")
    events: Words = Field(_BOOKING_EVENTS, description=EVENTS_DESCRIPTION)


class _Subject(Payload):
    """The id in the `data` of any event, including events that OnceHub adds later."""

    id: Text = None


class _Envelope(Payload):
    id: Text = None
    type: Id
    creation_time: Instant
    data: Annotated[_Subject | None, OBJECT] = None


class _BookingEnvelope(Payload):
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
        timestamp, signatures = timestamped_signature(delivery.headers.get_single(SIGNATURE), "s")
        expected_signatures = [
            timestamped_hmac(secret, timestamp, delivery.body) for secret in self.settings.live_secrets()
        ]
        return Proof(
            which_matches(signatures, expected_signatures), datetime.fromtimestamp(int(timestamp), UTC)
        )

    def identify(self, delivery: VerifiedDelivery) -> EventIdentity:
        envelope = read_json(_Envelope, delivery.body)
        return EventIdentity(
            id=envelope.id or digest(self.source, delivery.body),
            type=envelope.type,
            subject=(envelope.data.id if envelope.data else None) or self.source,
            time=envelope.creation_time,
        )

    def booking_of_webhook(self, event: Event) -> Booking | None:
        """Map an event whose type begins with `booking.` to its booking; return None for other types.

        OnceHub adds such types, and their `data` has the same form.
        """
        if not event.type.startswith("oncehub.booking."):
            return None
        reassigned = event.type == "oncehub.booking.reassigned"
        return booking_of_webhook(read_json(_BookingEnvelope, event.data).data, reassigned=reassigned)

    def booking_of_record(self, data: bytes) -> Booking:
        """Map a booking of GET /bookings. With `expand=owner` it also has the name of its staff."""
        return booking_of_record(read_json(Booked, data))

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
    timestamp = str(int(at.timestamp()))
    return {SIGNATURE: f"t={timestamp},s={timestamped_hmac(secret, timestamp, body)}"}


ACCOUNT = Oncehub
