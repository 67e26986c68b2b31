"""Appointedd (webhooks and API v1): one booking has any number of participants, none included; nothing it sends is signed.

Webhooks: https://developers.appointedd.com/docs/webhooks
Payloads: https://developers.appointedd.com/docs/what-data-is-sent-with-a-webhook
Set-up:   https://support.appointedd.com/en/articles/1361736-how-to-set-up-webhooks
REST:     https://developers.appointedd.com/reference/booking-entity
"""

import re
from base64 import b64encode
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AliasChoices, AliasPath, BeforeValidator, Field, SecretStr, model_validator

from ingest.booking import Booking, BookingStatus
from ingest.errors import VerificationError
from ingest.event import Event, digest
from ingest.instant import format_instant
from ingest.signing import which_matches
from ingest.vendors import Account, Delivery, Proof, Reading, Vendor, VerifiedDelivery
from ingest.vendors.payload import Amount, Id, Instant, MaybeInstant, Payload, Text, read_json

# What a header can carry unchanged. How Appointedd would encode anything else is not documented.
_HEADER_SAFE = re.compile(r"[!-~]([ -~]*[!-~])?")

# Only `booking_created` is documented to the letter; the others follow its pattern and the prose, in both spellings.
_CANCELLATIONS = {"booking_cancelled", "booking_canceled", "booking_deleted"}
_BOOKING_EVENTS = _CANCELLATIONS | {"booking_created", "booking_updated"}

# Letters only, lower-case: webhooks say `Confirmed` where REST says `confirmed`. The first two are documented.
_STATUSES = {
    "confirmed": BookingStatus.CONFIRMED,
    "cancelled": BookingStatus.CANCELLED,
    "canceled": BookingStatus.CANCELLED,
    "pending": BookingStatus.PENDING,
    "completed": BookingStatus.COMPLETED,
    "noshow": BookingStatus.NO_SHOW,
}


class AppointeddAccount(Account):
    """Appointedd's webhook form offers a custom header or basic authentication; the settings say which one was filled in.

    For the REST side: `api_key` with `api = "v1"`, `client_id` and `client_secret` with `"v2"`.
    """

    rest_credentials: ClassVar[tuple[tuple[str, ...], ...]] = (("api_key",), ("client_id", "client_secret"))

    webhook_header: str | None = Field(
        None,
        pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
        description="Name of the custom header in Appointedd's webhook form. Its value is one of `webhook_secrets`.",
    )
    webhook_user: str | None = Field(
        None,
        pattern=r"^[ -9;-~]+$",
        description="User of basic authentication, instead of `webhook_header`. The password is one of `webhook_secrets`.",
    )
    api: Literal["v1", "v2"] = Field("v1", description="Version of the REST API: `v1`, or `v2`, which only `ingest sync` can use.")
    api_key: SecretStr | None = Field(None, description="API key.")
    client_id: str | None = Field(None, description="Client id for API `v2`.")
    client_secret: SecretStr | None = Field(None, description="Client secret for API `v2`.")

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        if self.webhook_header and self.webhook_user:
            raise ValueError("webhook_header and webhook_user are both set; keep the one that Appointedd's webhook form has")
        if self.webhook_secrets and not self.credential_header:
            raise ValueError(
                "webhook_secrets is set, but not how Appointedd sends them: set webhook_header to the custom header's name, "
                "or webhook_user to the user of basic authentication"
            )
        if not all(map(_HEADER_SAFE.fullmatch, self.live_secrets())):
            raise ValueError("webhook_secrets may hold printable ASCII only, no space at either end, and not be empty")
        return self

    @property
    def credential_header(self) -> str | None:
        """The lower-case name of the header with the secret in it; None when neither kind is configured."""
        if self.webhook_user:
            return "authorization"
        return self.webhook_header.lower() if self.webhook_header else None

    def can_reconcile(self) -> bool:
        """By API v1 only: the form of v2's bookings is not published."""
        return self.api == "v1" and self.api_key is not None

    def reconcile_needs(self) -> str:
        """The same, in words."""
        return "api_key, and api to v1" if self.api != "v1" else "api_key"

    def credential(self, secret: str) -> str:
        """The whole value of that header."""
        if not self.webhook_user:
            return secret
        return "Basic " + b64encode(f"{self.webhook_user}:{secret}".encode()).decode()


def _object(value: object) -> object:
    return value if isinstance(value, dict) else {}


def _object_of_id(value: object) -> object:
    return {"id": value} if isinstance(value, str) else value


def _never_null(value: object) -> object:
    return () if value is None else value


class _Entity(Payload):
    id: Text = None


_AnyEntity = Annotated[_Entity, BeforeValidator(_object)]


class _Data(Payload):
    organisation: _AnyEntity = _Entity()
    customer: _AnyEntity = _Entity()
    booking: _AnyEntity = _Entity()


class _Envelope(Payload):
    """Any delivery, of events we know and of those Appointedd adds later: only the type must be there."""

    event_type: Id
    event_data: Annotated[_Data, BeforeValidator(_object)] = _Data()

    def tells_of_booking(self) -> bool:
        """Types of our own list must have a booking; one we do not know, but named like them, may."""
        like_them = self.event_type.startswith("booking_") and self.event_data.booking.id is not None
        return like_them or self.event_type in _BOOKING_EVENTS


def _either(*paths: str) -> object:
    """One thing, two names, the webhooks' and REST's; whichever is there is read."""
    return Field(validation_alias=AliasChoices(*(AliasPath(*path.split(".")) for path in paths)))


_Spaces = Annotated[int, Field(ge=0, lt=2**31)]


class _Participant(Payload):
    """A customer's part in a booking: `participants[]` of a webhook, `customers[]` of REST with the `profile` put in."""

    customer_id: Annotated[Text, _either("customer_id", "id")] = None
    status: Annotated[Text, _either("booking_status", "status")] = None
    firstname: Annotated[Text, _either("firstname", "profile.firstname")] = None
    lastname: Annotated[Text, _either("lastname", "profile.lastname")] = None
    email: Annotated[Text, _either("email", "profile.email")] = None
    mobile: Annotated[Text, _either("mobile", "profile.mobile")] = None
    phone: Annotated[Text, _either("phone", "profile.phone")] = None
    timezone: Text = None
    spaces: _Spaces | None = None
    total_spaces: _Spaces | None = None

    def name(self) -> str | None:
        return " ".join(filter(None, (self.firstname, self.lastname))) or None

    def places(self) -> int:
        """Places taken; the old form of 2017 tells `spaces` or nothing."""
        return next((count for count in (self.total_spaces, self.spaces) if count is not None), 1)


class _Named(Payload):
    """A service, or a person or thing booked: `bookables` in webhooks, `resource` in REST."""

    id: Text = None
    name: Annotated[Text, _either("name", "profile.name")] = None


_MaybeNamed = Annotated[_Named | None, BeforeValidator(_object_of_id)]
_Participants = Annotated[tuple[_Participant, ...], BeforeValidator(_never_null)]
_Bookables = Annotated[tuple[_Named, ...], BeforeValidator(_never_null)]


class _Booking(Payload):
    id: Id
    updated: Instant
    created: MaybeInstant = None
    starts_at: Annotated[MaybeInstant, _either("start_time", "start")] = None
    ends_at: Annotated[MaybeInstant, _either("end_time", "end")] = None
    status: Text = None
    price: Amount | None = None


class _BookingData(Payload):
    booking: _Booking
    participants: _Participants = ()
    bookables: _Bookables = ()
    service: _MaybeNamed = None


class _BookingEnvelope(Payload):
    event_type: Id
    event_data: _BookingData


class _Record(_Booking):
    """See `Appointedd.booking_of_record`."""

    customers: _Participants = ()
    resource: _MaybeNamed = None
    service: _MaybeNamed = None

    def as_data(self) -> _BookingData:
        bookables = (self.resource,) if self.resource else ()
        return _BookingData(booking=self, participants=self.customers, bookables=bookables, service=self.service)


class Appointedd(Vendor[AppointeddAccount]):
    """A shared secret in a header proves the sender; there is no signature, delivery id, event time or attempt counter."""

    name = "appointedd"
    Account = AppointeddAccount

    @property
    def credential_header(self) -> str | None:
        """The lower-case name of the header that carries the secret itself, so that nobody keeps it."""
        return self.account.credential_header

    def authenticate(self, delivery: Delivery) -> Proof:
        if not self.credential_header:
            raise VerificationError("the account has neither webhook_header nor webhook_user")
        given = delivery.headers.one(self.credential_header)
        if not given.isascii():
            raise VerificationError("the credential is not ASCII")
        return Proof(which_matches([given], [self.account.credential(secret) for secret in self.account.live_secrets()]))

    def read(self, delivery: VerifiedDelivery) -> Reading:
        """The id covers the raw body, which holds all that could tell two deliveries apart: organisation, type, booking, `updated`.

        No payload says when its event happened, so the time is when it was seen: of two that tie, the later seen wins.
        """
        envelope = read_json(_Envelope, delivery.body)
        return Reading(
            id=digest(self.source, delivery.body),
            type=envelope.event_type,
            subject=_subject(envelope, delivery.body) or self.source,
            time=delivery.received_at,
        )

    def booking_of_webhook(self, event: Event) -> Booking | None:
        if not read_json(_Envelope, event.data).tells_of_booking():
            return None
        envelope = read_json(_BookingEnvelope, event.data)
        return _canonical(envelope.event_data, cancelled=envelope.event_type in _CANCELLATIONS)

    def booking_of_record(self, data: bytes) -> Booking:
        """A booking of GET /bookings, which has ids where webhooks have names; what was looked up is put in its place.

        `service`: its id, or the object of GET /services; `resource`: its id, or the object of GET /resources (`profile.name`);
        `customers[]`: as they are, or each with the `profile` of GET /customers/{id} (firstname, lastname, email, phone, mobile).
        """
        return _canonical(read_json(_Record, data).as_data(), cancelled=False)


def sign(account: AppointeddAccount, secret: str) -> dict[str, str]:
    """The headers Appointedd would send, none where none is configured; for the simulator and tests."""
    return {account.credential_header: account.credential(secret)} if account.credential_header else {}


def _subject(envelope: _Envelope, body: bytes) -> str | None:
    """A booking that cannot be read is refused here already, while its sender's delivery is at hand."""
    if envelope.tells_of_booking():
        return read_json(_BookingEnvelope, body).event_data.booking.id
    data = envelope.event_data
    return data.booking.id or data.customer.id or data.organisation.id


def _canonical(data: _BookingData, *, cancelled: bool) -> Booking:
    booking, first = data.booking, next(iter(data.participants), _Participant())
    service = data.service or _Named()
    status = BookingStatus.CANCELLED if cancelled else _status(data)
    return Booking(
        booking_id=booking.id,
        version=_version(booking, status),
        status=status,
        starts_at=booking.starts_at,
        ends_at=booking.ends_at,
        timezone=first.timezone,  # the booking's own zone is in webhooks only
        created_at=booking.created,
        updated_at=booking.updated,
        service_id=service.id,
        service_name=service.name,
        staff=tuple(bookable.id for bookable in data.bookables if bookable.id),
        staff_name=next((bookable.name for bookable in data.bookables), None),
        customer_id=first.customer_id,
        customer_name=first.name(),
        customer_email=first.email,
        customer_phone=first.mobile or first.phone,
        participants=sum(participant.places() for participant in data.participants),
        price=booking.price,  # no payload and no record tells the currency
    )


def _version(booking: _Booking, status: BookingStatus) -> str:
    """The second of `updated`, then what can have happened in it, in order: 0 created, 1 changed, 2 cancelled.

    `updated` equals `created`, to the millisecond, until the first change; a change sets it to a whole second, whether cut
    or rounded nobody says. A change at 10:00:00.9 to what was created at 10:00:00.742 may so be said to be *older* than the
    creation. Cut to the second, a change is never below what came before it. Creations, changes and cancellations of one
    second are told apart by the rank, from what both webhooks and REST have; two changes in one second do tie.
    """
    changed = 0 if booking.updated == booking.created else 1
    rank = 2 if status is BookingStatus.CANCELLED else changed
    return f"{format_instant(booking.updated.replace(microsecond=0))}.{rank}"


def _status(data: _BookingData) -> BookingStatus:
    """Cancelled is cancelled; else nobody came when every participant is marked so (that mark's wording is not documented)."""
    status = _STATUSES.get(_letters(data.booking.status), BookingStatus.UNKNOWN)
    marks = [_letters(participant.status) for participant in data.participants]
    if status is not BookingStatus.CANCELLED and marks and all(mark == "noshow" for mark in marks):
        return BookingStatus.NO_SHOW
    return status


def _letters(word: str | None) -> str:
    return "".join(filter(str.isalpha, word or "")).lower()


VENDOR = Appointedd
