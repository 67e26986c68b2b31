"""The vendor Calendly (API v2).

A booking is one invitee. Several invitees may share one scheduled event.

Signature: https://developer.calendly.com/api-docs/overview/webhooks/webhook-signatures
Payloads:  https://developer.calendly.com/api-docs/calendly-api/webhooks
"""

from datetime import datetime
from typing import ClassVar, Literal

import orjson
from pydantic import Field, SecretStr

from ingest.booking import Booking
from ingest.errors import PayloadError
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
from ingest.vendors.calendly.booking import Invitee, InviteeChange, booking_of_invitee
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
    """Settings of a Calendly account. REST needs a personal access token or an OAuth app's credentials."""

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
        description=(
            "Whose bookings REST reads: `organization` (the token's user must be owner or admin) or `user`."
        ),
    )
    check_no_shows: bool = Field(
        True,
        description=(
            "Whether reconciliation looks at every held meeting, one request each,"
            " because no list has its no-show."
        ),
    )
    events: Words = Field(_BOOKING_EVENTS, description=EVENTS_DESCRIPTION)


class _Subject(Payload):
    """The fields that identify the subject of any event, including events that Calendly adds later."""

    uri: Text = None
    updated_at: MaybeInstant = None
    deleted_at: MaybeInstant = None


class _Envelope(Payload):
    event: Id
    created_at: Instant
    payload: _Subject


class _BookingChange(Payload):
    """The fields that identify an event of a booking."""

    event: Id
    created_at: Instant
    payload: InviteeChange

    def changed_at(self) -> datetime:
        """Return the time of the last change."""
        # Removing a no-show changes only the envelope's time, which is truncated to the second,
        # so the end of that second is used.
        if self.event == "invitee_no_show.deleted":
            return latest(self.payload.changed_at(), self.created_at.replace(microsecond=999_999))
        return self.payload.changed_at()


class _BookingEnvelope(_BookingChange):
    payload: Invitee

    def invitee(self) -> Invitee:
        """Return the invitee.

        Old payloads have no status; the event's name then determines it.
        """
        if self.payload.status:
            return self.payload
        return self.payload.model_copy(
            update={"status": "canceled" if self.event == "invitee.canceled" else "active"}
        )


class Calendly(Account[CalendlySettings]):
    """An account of Calendly.

    Deliveries are signed with HMAC-SHA256 over `t.body`. They have no id, so an event is identified by its
    type, its invitee and the time of the change.
    """

    vendor = "calendly"
    title = "Calendly"
    rank = 1
    example = Example(
        account="sales",
        secrets=(
            (
                'webhook_secrets = ["GENERATED"]'
                "   # the signing_key you give Calendly when you create the subscription"
            ),
            (
                '# api_token = "a personal access token"'
                "   # this and the keys below: to find what webhooks missed, and to sync"
            ),
        ),
    )
    settings_model = CalendlySettings

    def authenticate(self, delivery: Delivery) -> Proof:
        header = delivery.headers.get_single(SIGNATURE)
        sent_at, signatures, expected = timestamped_candidates(
            header, "v1", delivery.body, self.settings.live_secrets()
        )
        return Proof(which_matches(signatures, expected), sent_at)

    def identify(self, delivery: VerifiedDelivery) -> EventIdentity:
        envelope = _read_envelope(delivery.body)
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
        """Map an invitee of GET /scheduled_events/{uuid}/invitees to its booking.

        The invitee's event is added as `scheduled_event`, where webhooks have it too.
        """
        invitee = read_json(Invitee, data)
        return booking_of_invitee(invitee, invitee.changed_at())

    def compose_test(self, secret: str, name: str, at: datetime) -> Delivery:
        payload = {"uri": f"{self.source}/{name}"}
        body = orjson.dumps({"event": TEST_EVENT, "created_at": format_instant(at), "payload": payload})
        return Delivery("", Headers.of(sign(secret, body, at).items()), body, at)


def sign(secret: str, body: bytes, at: datetime) -> dict[str, str]:
    """Return the headers that Calendly would send, for the simulator and tests."""
    return {SIGNATURE: timestamped_header(secret, "v1", body, at)}


def _read_envelope(body: bytes) -> _BookingChange | _Envelope:
    """Return the fields that identify an event. Raises PayloadError."""
    try:
        change = read_json(_BookingChange, body)
    except PayloadError:
        envelope = read_json(_Envelope, body)
        if envelope.event in _BOOKING_EVENTS:
            raise
        return envelope
    return change if change.event in _BOOKING_EVENTS else read_json(_Envelope, body)


def _id_parts(envelope: _BookingChange | _Envelope, body: bytes) -> tuple[str | bytes, ...]:
    """Return the parts that an event's id is a digest of.

    Overlapping subscriptions deliver the same change in bodies that differ in `created_by`. These deliveries
    must have the same id, so the body is only used where the payload has no URI or no time of change.
    """
    if isinstance(envelope, _BookingChange):
        return envelope.event, envelope.payload.uri, format_instant(envelope.changed_at())
    changed_at = envelope.payload.updated_at or envelope.payload.deleted_at
    if envelope.payload.uri and changed_at:
        return envelope.event, envelope.payload.uri, format_instant(changed_at)
    return (body,)


ACCOUNT = Calendly
