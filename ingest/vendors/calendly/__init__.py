"""Calendly (API v2). One booking is one invitee; its scheduled event is what invitees share.

Signature: https://developer.calendly.com/api-docs/overview/webhooks/webhook-signatures
Payloads:  https://developer.calendly.com/api-docs/calendly-api/webhooks
"""

from datetime import UTC, datetime
from typing import ClassVar, Literal

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
from ingest.vendors.calendly.booking import Invitee, booking_of_invitee
from ingest.vendors.delivery import Headers
from ingest.vendors.fields import Id, Instant, MaybeInstant, Payload, Text, latest, read_json

SIGNATURE = "calendly-webhook-signature"

_BOOKING_EVENTS = (
    "invitee.created",
    "invitee.canceled",
    "invitee_no_show.created",
    "invitee_no_show.deleted",
)


class CalendlySettings(AccountSettings):
    """The settings of a Calendly account. The REST side needs a personal access token, or the credentials of an OAuth app."""

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
    events: Words = Field(_BOOKING_EVENTS, description=EVENTS_DESCRIPTION)


class _Subject(Payload):
    """Any payload, including those of events that Calendly adds later."""

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
        """Return the invitee. In old forms it has no status; then the event's name determines it."""
        if self.payload.status:
            return self.payload
        return self.payload.model_copy(
            update={"status": "canceled" if self.event == "invitee.canceled" else "active"}
        )

    def changed_at(self) -> datetime:
        """Return the time of the last change."""
        # Taking back a no-show changes only the envelope's time, which is cut to the second: the end of that second counts.
        if self.event == "invitee_no_show.deleted":
            return latest(self.payload.changed_at(), self.created_at.replace(microsecond=999_999))
        return self.payload.changed_at()


class Calendly(Account[CalendlySettings]):
    """An account of Calendly.

    Deliveries are signed with HMAC-SHA256 over `t.body`. They have no id, so an event is identified by what happened to whom at which
    version.
    """

    vendor = "calendly"
    title = "Calendly"
    rank = 1
    example = Example(
        account="sales",
        secrets=(
            'webhook_secrets = ["GENERATED"]   # the signing_key you give Calendly when you create the subscription',
            '# api_token = "a personal access token"   # this and the keys below: to find what webhooks missed, and to sync',
        ),
    )
    settings_model = CalendlySettings

    def authenticate(self, delivery: Delivery) -> Proof:
        sent, signatures = timestamped_signature(delivery.headers.get_single(SIGNATURE), "v1")
        expected = [timestamped_hmac(secret, sent, delivery.body) for secret in self.settings.live_secrets()]
        return Proof(which_matches(signatures, expected), datetime.fromtimestamp(int(sent), UTC))

    def identify(self, delivery: VerifiedDelivery) -> EventIdentity:
        envelope = read_json(_Envelope, delivery.body)
        return EventIdentity(
            id=digest(self.source, *_id_parts(envelope, delivery.body)),
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
        """Map an invitee of GET /scheduled_events/{uuid}/invitees, with its event added as `scheduled_event`, as webhooks have it."""
        invitee = read_json(Invitee, data)
        return booking_of_invitee(invitee, invitee.changed_at())

    def compose_test(self, secret: str, name: str, at: datetime) -> Delivery:
        payload = {"uri": f"{self.source}/{name}"}
        body = orjson.dumps({"event": TEST_EVENT, "created_at": format_instant(at), "payload": payload})
        return Delivery("", Headers.of(sign(secret, body, at).items()), body, at)


def sign(secret: str, body: bytes, at: datetime) -> dict[str, str]:
    """Return the headers that Calendly would send, for the simulator and tests."""
    sent = str(int(at.timestamp()))
    return {SIGNATURE: f"t={sent},v1={timestamped_hmac(secret, sent, body)}"}


def _id_parts(envelope: _Envelope, body: bytes) -> tuple[str | bytes, ...]:
    """Return what an event's id is made of.

    Two overlapping subscriptions deliver one change in bodies that differ in `created_by`, and it must be one event.
    """
    if envelope.event in _BOOKING_EVENTS:
        booking = read_json(_BookingEnvelope, body)
        return envelope.event, booking.payload.uri, format_instant(booking.changed_at())
    changed_at = envelope.payload.updated_at or envelope.payload.deleted_at
    if envelope.payload.uri and changed_at:
        return envelope.event, envelope.payload.uri, format_instant(changed_at)
    return (body,)


ACCOUNT = Calendly
