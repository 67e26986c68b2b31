"""Calendly (API v2): one booking is one invitee; its scheduled event is what invitees share.

Signature: https://developer.calendly.com/api-docs/overview/webhooks/webhook-signatures
Payloads:  https://developer.calendly.com/api-docs/calendly-api/webhooks
"""

from datetime import UTC, datetime
from typing import ClassVar, Literal

from pydantic import Field, SecretStr

from ingest.booking import Booking
from ingest.event import Event, digest
from ingest.instant import format_instant
from ingest.signing import timestamped_hmac, timestamped_signature, which_matches
from ingest.vendors import Account, AccountSettings, Delivery, Proof, Reading, VerifiedDelivery
from ingest.vendors.account import EVENTS, Words
from ingest.vendors.calendly.booking import Invitee, booking_of_invitee
from ingest.vendors.fields import Id, Instant, MaybeInstant, Payload, Text, latest, read_json

SIGNATURE = "calendly-webhook-signature"

_BOOKING_EVENTS = (
    "invitee.created",
    "invitee.canceled",
    "invitee_no_show.created",
    "invitee_no_show.deleted",
)


class CalendlySettings(AccountSettings):
    """For the REST side: a personal access token, or the credentials of an OAuth app."""

    rest_credentials: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("api_token",),
        ("client_id", "client_secret", "refresh_token"),
    )

    api_token: SecretStr | None = Field(None, description="Personal access token.")
    client_id: str | None = Field(None, description="Client id of an OAuth app, instead of `api_token`.")
    client_secret: SecretStr | None = Field(None, description="Client secret of the OAuth app.")
    refresh_token: SecretStr | None = Field(
        None, description="Refresh token of the OAuth app. Its successors are kept in `reconcile.state_dir`."
    )
    scope: Literal["organization", "user"] = Field(
        "organization",
        description="Whose bookings REST reads: `organization` (the token's user must be owner or admin) or `user`.",
    )
    check_no_shows: bool = Field(
        True,
        description="Whether reconciliation looks at every held meeting, one request each, because no list has its no-show.",
    )
    events: Words = Field(_BOOKING_EVENTS, description=EVENTS)


class _Subject(Payload):
    """Any payload, of events we know and of those Calendly adds later."""

    uri: Text = None
    updated_at: MaybeInstant = None
    deleted_at: MaybeInstant = None


class _Envelope(Payload):
    event: Id
    created_at: Instant
    payload: _Subject


class _BookingEnvelope(Payload):
    event: Id
    created_at: Instant
    payload: Invitee

    def invitee(self) -> Invitee:
        """Return the invitee; one without a status, as in old forms, has the status that the event's name tells."""
        if self.payload.status:
            return self.payload
        return self.payload.model_copy(
            update={"status": "canceled" if self.event == "invitee.canceled" else "active"}
        )

    def changed_at(self) -> datetime:
        """Where a no-show is taken back only the envelope's time moves, and that is cut to the second: count all of it."""
        if self.event == "invitee_no_show.deleted":
            return latest(self.payload.changed_at(), self.created_at.replace(microsecond=999_999))
        return self.payload.changed_at()


class Calendly(Account[CalendlySettings]):
    """Signed with HMAC-SHA256 over `t.body`; no delivery id, so identity is what happened to whom at which version."""

    vendor = "calendly"
    settings_model = CalendlySettings

    def authenticate(self, delivery: Delivery) -> Proof:
        sent, signatures = timestamped_signature(delivery.headers.one(SIGNATURE), "v1")
        expected = [timestamped_hmac(secret, sent, delivery.body) for secret in self.settings.live_secrets()]
        return Proof(which_matches(signatures, expected), datetime.fromtimestamp(int(sent), UTC))

    def read(self, delivery: VerifiedDelivery) -> Reading:
        envelope = read_json(_Envelope, delivery.body)
        return Reading(
            id=digest(self.source, *_identity(envelope, delivery.body)),
            type=envelope.event,
            subject=envelope.payload.uri or self.source,
            time=envelope.created_at,
        )

    def booking_of_webhook(self, event: Event) -> Booking | None:
        if event.type.removeprefix("calendly.") not in _BOOKING_EVENTS:
            return None
        envelope = read_json(_BookingEnvelope, event.data)
        return booking_of_invitee(envelope.invitee(), envelope.changed_at())

    def booking_of_record(self, data: bytes) -> Booking:
        """An invitee of GET /scheduled_events/{uuid}/invitees, its event put in as `scheduled_event`, as webhooks have it."""
        invitee = read_json(Invitee, data)
        return booking_of_invitee(invitee, invitee.changed_at())


def sign(secret: str, body: bytes, at: datetime) -> dict[str, str]:
    """The headers Calendly would send; for the simulator and tests."""
    sent = str(int(at.timestamp()))
    return {SIGNATURE: f"t={sent},v1={timestamped_hmac(secret, sent, body)}"}


def _identity(envelope: _Envelope, body: bytes) -> tuple[str | bytes, ...]:
    """Two overlapping subscriptions deliver one change in bodies that differ in `created_by`: it must be one event."""
    if envelope.event in _BOOKING_EVENTS:
        booking = read_json(_BookingEnvelope, body)
        return envelope.event, booking.payload.uri, format_instant(booking.changed_at())
    changed_at = envelope.payload.updated_at or envelope.payload.deleted_at
    if envelope.payload.uri and changed_at:
        return envelope.event, envelope.payload.uri, format_instant(changed_at)
    return (body,)


ACCOUNT = Calendly
