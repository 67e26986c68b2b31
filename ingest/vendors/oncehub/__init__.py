"""OnceHub (API v2): every booking event carries the whole booking, in nearly the form the REST side has it.

Signature: https://help.oncehub.com/developers/webhooks/webhook-signatures/
Payloads:  https://help.oncehub.com/developers/api/
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from ingest.booking import Booking, BookingStatus
from ingest.errors import PayloadError
from ingest.event import Event, digest
from ingest.instant import format_instant
from ingest.signing import timestamped_hmac, timestamped_signature, which_matches
from ingest.vendors import Account, Delivery, Proof, Reading, Vendor, VerifiedDelivery
from ingest.vendors.account import EVENTS, Words
from ingest.vendors.payload import Amount, Id, Instant, MaybeInstant, Payload, Text, read_json

SIGNATURE = "oncehub-signature"

# `rescheduled` says that the booking stands, at its new time: only `canceled` ends one.
# https://help.oncehub.com/help/effect-of-rescheduling
_STATUSES = {
    "requested": BookingStatus.PENDING,
    "scheduled": BookingStatus.CONFIRMED,
    "rescheduled": BookingStatus.CONFIRMED,
    "completed": BookingStatus.COMPLETED,
    "canceled": BookingStatus.CANCELLED,
    "no_show": BookingStatus.NO_SHOW,
}
_ACTORS = {"customer": "customer", "user": "host"}

# Digits after the point, where ISO 4217 does not have two.
_ZERO = ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF")
_THREE = ("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND")
_EXPONENTS = dict.fromkeys(_ZERO, 0) | dict.fromkeys(_THREE, 3)


def _whole_second(moment: datetime | None) -> datetime | None:
    """Webhooks tell milliseconds, REST seconds: only what both sides tell can be compared."""
    return moment and moment.replace(microsecond=0)


def _expanded(value: object) -> object:
    return {"id": value} if isinstance(value, str) else value


def _count(value: object) -> int:
    return sum(1 for entry in value if entry) if isinstance(value, list) else 0


Second = Annotated[Instant, AfterValidator(_whole_second)]
MaybeSecond = Annotated[MaybeInstant, AfterValidator(_whole_second)]
Count = Annotated[int, BeforeValidator(_count)]


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


class OncehubAccount(Account):
    """The REST side has one key."""

    rest_credentials: ClassVar[tuple[tuple[str, ...], ...]] = (("api_key",),)

    api_key: SecretStr | None = Field(None, description="API key.")
    events: Words = Field(_BOOKING_EVENTS, description=EVENTS)


class _Part(Payload):
    """An object in which null and "" both mean absent, as OnceHub writes them; what is no object at all is an empty one."""

    @model_validator(mode="before")
    @classmethod
    def _present(cls, value: object) -> object:
        if not isinstance(value, dict):
            return {}
        return {name: given for name, given in value.items() if given not in (None, "")}


class _Named(_Part):
    id: Text = None
    first_name: Text = None
    last_name: Text = None

    def name(self) -> str | None:
        return " ".join(part for part in (self.first_name, self.last_name) if part) or None


# Another object: its id, or all of it where it was expanded. Webhooks have been seen with either.
_Reference = Annotated[_Named, BeforeValidator(_expanded)]


class _Conferencing(_Part):
    join_url: Text = None


class _Change(_Part):
    reason: Text = None
    actioned_by: Text = None


class _Form(_Part):
    name: Text = None
    email: Text = None
    phone: Text = None
    mobile_phone: Text = None
    guests: Count = 0


class _Payment(_Part):
    amount_charged: Amount | None = None
    currency: Text = None

    def price(self) -> tuple[Decimal, str] | tuple[None, None]:
        """In major units, with its currency: minor units mean nothing without one."""
        if self.amount_charged is None or self.currency is None:
            return None, None
        currency = self.currency.upper()
        return self.amount_charged.scaleb(-_EXPONENTS.get(currency, 2)), currency


class _Booking(_Part):
    id: Id
    creation_time: Second
    last_updated_time: MaybeSecond = None
    starting_time: MaybeSecond = None
    duration_minutes: int | None = None
    status: Text = None
    subject: Text = None
    customer_timezone: Text = None
    location_description: Text = None
    rescheduled_booking_id: Text = None
    owner: _Reference = _Named()
    booking_calendar: _Reference = _Named()
    event_type: _Reference = _Named()
    booking_page: _Reference = _Named()
    master_page: _Reference = _Named()
    virtual_conferencing: _Conferencing = _Conferencing()
    cancel_reschedule_information: _Change = _Change()
    form_submission: _Form | None = None
    payment_information: _Payment = _Payment()

    def service_id(self) -> str | None:
        return self.booking_calendar.id or self.event_type.id or self.booking_page.id or self.master_page.id

    def ends_at(self) -> datetime | None:
        if self.starting_time is None or self.duration_minutes is None:
            return None
        try:
            return self.starting_time + timedelta(minutes=self.duration_minutes)
        except OverflowError:
            raise PayloadError("duration_minutes leads out of the calendar") from None


class _Subject(_Part):
    """Any `data`, of events we know and of those OnceHub adds later."""

    id: Text = None


class _Envelope(_Part):
    id: Text = None
    type: Id
    creation_time: Instant
    data: _Subject = _Subject()


class _BookingEnvelope(_Part):
    data: _Booking


class Oncehub(Vendor[OncehubAccount]):
    """Signed with HMAC-SHA256 over `t.body`. Only v2 webhooks are: what a v1 webhook sends is never authentic."""

    name = "oncehub"
    Account = OncehubAccount

    def authenticate(self, delivery: Delivery) -> Proof:
        sent, signatures = timestamped_signature(delivery.headers.one(SIGNATURE), "s")
        expected = [timestamped_hmac(secret, sent, delivery.body) for secret in self.account.live_secrets()]
        return Proof(which_matches(signatures, expected), datetime.fromtimestamp(int(sent), UTC))

    def read(self, delivery: VerifiedDelivery) -> Reading:
        envelope = read_json(_Envelope, delivery.body)
        return Reading(
            id=envelope.id or digest(self.source, delivery.body),
            type=envelope.type,
            subject=envelope.data.id or self.source,
            time=envelope.creation_time,
        )

    def booking_of_webhook(self, event: Event) -> Booking | None:
        """The family decides, not a list: `booking.reassigned` was added years later, with the same `data` as its sisters."""
        if not event.type.startswith("oncehub.booking."):
            return None
        return _booking(read_json(_BookingEnvelope, event.data).data)

    def booking_of_record(self, data: bytes) -> Booking:
        """A booking of GET /bookings; with `expand=owner` it also has the name of its staff."""
        return _booking(read_json(_Booking, data))


def sign(secret: str, body: bytes, at: datetime) -> dict[str, str]:
    """The headers OnceHub would send; for the simulator and tests."""
    sent = str(int(at.timestamp()))
    return {SIGNATURE: f"t={sent},s={timestamped_hmac(secret, sent, body)}"}


def _booking(data: _Booking) -> Booking:
    changed_at = data.last_updated_time or data.creation_time
    status = _STATUSES.get(data.status or "", BookingStatus.UNKNOWN)
    form = data.form_submission or _Form()
    # The same block tells why a booking was moved, and that is not why it was cancelled.
    cancellation = data.cancel_reschedule_information if status is BookingStatus.CANCELLED else _Change()
    price, currency = data.payment_information.price()
    return Booking(
        booking_id=data.id,
        version=format_instant(changed_at),
        status=status,
        starts_at=data.starting_time,
        ends_at=data.ends_at(),
        timezone=data.customer_timezone,
        created_at=data.creation_time,
        updated_at=changed_at,
        service_id=data.service_id(),
        service_name=data.subject,
        staff=(data.owner.id,) if data.owner.id else (),
        staff_name=data.owner.name(),
        location=data.virtual_conferencing.join_url or data.location_description,
        customer_name=form.name,
        customer_email=form.email,
        customer_phone=form.phone or form.mobile_phone,
        participants=1 + form.guests if data.form_submission else None,
        price=price,
        currency=currency,
        cancel_reason=cancellation.reason,
        cancelled_by=_ACTORS.get(cancellation.actioned_by or "", cancellation.actioned_by),
        rescheduled_from=data.rescheduled_booking_id,
    )


VENDOR = Oncehub
