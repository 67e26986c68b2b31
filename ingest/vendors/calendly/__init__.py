"""Calendly (API v2): one booking is one invitee; its scheduled event is what invitees share.

Signature: https://developer.calendly.com/api-docs/overview/webhooks/webhook-signatures
Payloads:  https://developer.calendly.com/api-docs/calendly-api/webhooks
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import ClassVar, Literal

from pydantic import Field, SecretStr

from ingest.booking import Booking, BookingStatus
from ingest.event import Event, digest
from ingest.instant import format_instant
from ingest.signing import timestamped_hmac, timestamped_signature, which_matches
from ingest.vendors import Account, Delivery, Proof, Reading, Vendor, VerifiedDelivery
from ingest.vendors.account import EVENTS, Words
from ingest.vendors.payload import Amount, Id, Instant, MaybeInstant, Payload, Text, latest, read_json

SIGNATURE = "calendly-webhook-signature"

_BOOKING_EVENTS = ("invitee.created", "invitee.canceled", "invitee_no_show.created", "invitee_no_show.deleted")
_STATUSES = {"active": BookingStatus.CONFIRMED, "canceled": BookingStatus.CANCELLED}
_CANCELERS = {"invitee": "customer", "host": "host"}


class CalendlyAccount(Account):
    """For the REST side: a personal access token, or the credentials of an OAuth app."""

    rest_credentials: ClassVar[tuple[tuple[str, ...], ...]] = (("api_token",), ("client_id", "client_secret", "refresh_token"))

    api_token: SecretStr | None = Field(None, description="Personal access token.")
    client_id: str | None = Field(None, description="Client id of an OAuth app, instead of `api_token`.")
    client_secret: SecretStr | None = Field(None, description="Client secret of the OAuth app.")
    refresh_token: SecretStr | None = Field(
        None, description="Refresh token of the OAuth app. Its successors are kept in `reconcile.state_dir`."
    )
    scope: Literal["organization", "user"] = Field(
        "organization", description="Whose bookings REST reads: `organization` (the token's user must be owner or admin) or `user`."
    )
    check_no_shows: bool = Field(
        True, description="Whether reconciliation looks at every held meeting, one request each, because no list has its no-show."
    )
    events: Words = Field(_BOOKING_EVENTS, description=EVENTS)


class _Cancellation(Payload):
    reason: Text = None
    canceler_type: Text = None
    created_at: MaybeInstant = None


class _NoShow(Payload):
    created_at: MaybeInstant = None


class _Reconfirmation(Payload):
    confirmed_at: MaybeInstant = None


class _Payment(Payload):
    amount: Amount | None = None
    currency: Text = None
    successful: bool | None = None


class _Location(Payload):
    type: Text = None
    location: Text = None
    join_url: Text = None

    def text(self) -> str | None:
        return self.join_url or self.location or self.type


class _Host(Payload):
    user: Text = None
    user_name: Text = None
    user_email: Text = None


class ScheduledEvent(Payload):
    """What the invitees of one meeting share; the same object in webhooks and in REST."""

    uri: Text = None
    name: Text = None
    start_time: MaybeInstant = None
    end_time: MaybeInstant = None
    event_type: Text = None
    location: _Location | None = None
    event_memberships: tuple[_Host, ...] = ()

    def staff(self) -> tuple[str, ...]:
        """The hosts' URIs."""
        return tuple(host.user for host in self.event_memberships if host.user)

    def place(self) -> str | None:
        """Link, address or kind."""
        return self.location.text() if self.location else None


class _Invitee(Payload):
    uri: Id
    created_at: Instant
    updated_at: Instant
    status: Text = None
    event: Text = None
    name: Text = None
    email: Text = None
    timezone: Text = None
    text_reminder_number: Text = None
    rescheduled: bool | None = None
    old_invitee: Text = None
    new_invitee: Text = None
    cancellation: _Cancellation | None = None
    no_show: _NoShow | None = None
    reconfirmation: _Reconfirmation | None = None
    payment: _Payment | None = None
    scheduled_event: ScheduledEvent = Field(default_factory=ScheduledEvent)

    def changed_at(self) -> datetime:
        """`updated_at` does not move for a no-show, so the parts' own times count too."""
        return latest(
            self.updated_at,
            self.cancellation.created_at if self.cancellation else None,
            self.no_show.created_at if self.no_show else None,
            self.reconfirmation.confirmed_at if self.reconfirmation else None,
        )


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
    payload: _Invitee

    def changed_at(self) -> datetime:
        """Where a no-show is taken back only the envelope's time moves, and that is cut to the second: count all of it."""
        if self.event == "invitee_no_show.deleted":
            return latest(self.payload.changed_at(), self.created_at.replace(microsecond=999_999))
        return self.payload.changed_at()


class Calendly(Vendor[CalendlyAccount]):
    """Signed with HMAC-SHA256 over `t.body`; no delivery id, so identity is what happened to whom at which version."""

    name = "calendly"
    Account = CalendlyAccount

    def authenticate(self, delivery: Delivery) -> Proof:
        sent, signatures = timestamped_signature(delivery.headers.one(SIGNATURE), "v1")
        expected = [timestamped_hmac(secret, sent, delivery.body) for secret in self.account.live_secrets()]
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
        return _booking(envelope.payload, envelope.changed_at())

    def booking_of_record(self, data: bytes) -> Booking:
        """An invitee of GET /scheduled_events/{uuid}/invitees, its event put in as `scheduled_event`, as webhooks have it."""
        invitee = read_json(_Invitee, data)
        return _booking(invitee, invitee.changed_at())


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


def _booking(invitee: _Invitee, changed_at: datetime) -> Booking:
    event = invitee.scheduled_event
    cancellation = invitee.cancellation or _Cancellation()
    price, currency = _paid(invitee.payment)
    return Booking(
        booking_id=invitee.uri,
        version=format_instant(changed_at),
        status=_status(invitee),
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
        location=event.place(),
        customer_name=invitee.name,
        customer_email=invitee.email,
        customer_phone=_phone(invitee),
        participants=1,
        price=price,
        currency=currency,
        cancel_reason=cancellation.reason,
        cancelled_by=_CANCELERS.get(cancellation.canceler_type or "", cancellation.canceler_type),
        rescheduled_from=invitee.old_invitee,
        rescheduled_to=invitee.new_invitee,
    )


def _status(invitee: _Invitee) -> BookingStatus:
    if invitee.status == "canceled" and invitee.rescheduled:
        return BookingStatus.RESCHEDULED
    if invitee.status == "active" and invitee.no_show:
        return BookingStatus.NO_SHOW
    return _STATUSES.get(invitee.status or "", BookingStatus.UNKNOWN)


def _phone(invitee: _Invitee) -> str | None:
    location = invitee.scheduled_event.location
    called = location.location if location and location.type == "outbound_call" else None
    return invitee.text_reminder_number or called


def _paid(payment: _Payment | None) -> tuple[Decimal | None, str | None]:
    """Amount and currency, neither where nothing was paid."""
    if payment is None or not payment.successful or payment.amount is None:
        return None, None
    return payment.amount, payment.currency


VENDOR = Calendly
