"""The vendor Calendly (API v2).

A booking is one invitee. Several invitees may share one scheduled event.

Signature: https://developer.calendly.com/api-docs/overview/webhooks/webhook-signatures
Payloads:  https://developer.calendly.com/api-docs/calendly-api/webhooks
"""

from datetime import datetime
from typing import ClassVar, Literal

import orjson
from msgspec import UNSET, Struct
from pydantic import Field, SecretStr

from ingest.booking import Booking
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
from ingest.vendors.fields import (
    latest,
    read_fields,
    read_id,
    read_instant,
    read_maybe_instant,
    read_text,
    read_word,
)

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


class _Subject(InviteeChange):
    """The fields that identify the subject of any event, including events that Calendly adds later."""

    deleted_at: object = UNSET


class _Envelope(Struct):
    """The fields that identify any event."""

    event: str
    created_at: object
    payload: _Subject


class _BookingEnvelope(Struct):
    event: str
    created_at: object
    payload: Invitee

    def changed_at(self) -> datetime:
        """Return the time of the last change. Raises PayloadError."""
        return _changed_at(self.event, read_instant("created_at", self.created_at), self.payload.changed_at())

    def invitee(self) -> Invitee:
        """Return the invitee.

        Old payloads have no status; the event's name then determines it.
        """
        if read_word(self.payload.status) is None:
            self.payload.status = "canceled" if self.event == "invitee.canceled" else "active"
        return self.payload


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
        sent_at, signatures, expected = timestamped_candidates(header, "v1", delivery.body, self.live_secrets)
        return Proof(which_matches(signatures, expected), sent_at)

    def identify(self, delivery: VerifiedDelivery) -> EventIdentity:
        """Identify a delivery.

        Overlapping subscriptions deliver the same change in bodies that differ in `created_by`. These
        deliveries must have the same id, so it is only made of the body where the payload has no URI or no
        time of change.
        """
        envelope = read_fields(_Envelope, delivery.body)
        event, payload = read_id("event", envelope.event), envelope.payload
        created_at = read_instant("created_at", envelope.created_at)
        subject: str | None
        changed_at: datetime | None
        if event in _BOOKING_EVENTS:
            read_instant("created_at", payload.created_at)  # which each booking must have
            subject, changed_at = payload.booking_id(), _changed_at(event, created_at, payload.changed_at())
        else:
            subject = read_text(payload.uri)
            changed_at = read_maybe_instant("payload.updated_at", payload.updated_at)
            changed_at = changed_at or read_maybe_instant("payload.deleted_at", payload.deleted_at)
        parts = (event, subject, format_instant(changed_at)) if subject and changed_at else (delivery.body,)
        return EventIdentity(digest(self.source, *parts), event, subject or self.source, created_at)

    def booking_of_webhook(self, event: Event) -> Booking | None:
        if event.type.removeprefix("calendly.") not in _BOOKING_EVENTS:
            return None
        envelope = read_fields(_BookingEnvelope, event.data)
        return booking_of_invitee(envelope.invitee(), envelope.changed_at())

    def booking_of_record(self, data: bytes) -> Booking:
        """Map an invitee of GET /scheduled_events/{uuid}/invitees to its booking.

        The invitee's event is added as `scheduled_event`, where webhooks have it too.
        """
        invitee = read_fields(Invitee, data)
        return booking_of_invitee(invitee, invitee.changed_at())

    def compose_test(self, secret: str, name: str, at: datetime) -> Delivery:
        payload = {"uri": f"{self.source}/{name}"}
        body = orjson.dumps({"event": TEST_EVENT, "created_at": format_instant(at), "payload": payload})
        return Delivery("", Headers.of(sign(secret, body, at).items()), body, at)


def sign(secret: str, body: bytes, at: datetime) -> dict[str, str]:
    """Return the headers that Calendly would send, for the simulator and tests."""
    return {SIGNATURE: timestamped_header(secret, "v1", body, at)}


def _changed_at(event: str, created_at: datetime, invitee_changed_at: datetime) -> datetime:
    """Return when an invitee changed, by an event that was made at `created_at`."""
    # Removing a no-show changes only the envelope's time, which is truncated to the second,
    # so the end of that second is used.
    if event == "invitee_no_show.deleted":
        return latest(invitee_changed_at, created_at.replace(microsecond=999_999))
    return invitee_changed_at


ACCOUNT = Calendly
