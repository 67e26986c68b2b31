"""Appointedd (webhooks and API v1): one booking has any number of participants, none included; nothing it sends is signed.

Webhooks: https://developers.appointedd.com/docs/webhooks
Payloads: https://developers.appointedd.com/docs/what-data-is-sent-with-a-webhook
Set-up:   https://support.appointedd.com/en/articles/1361736-how-to-set-up-webhooks
REST:     https://developers.appointedd.com/reference/booking-entity
"""

import re
from base64 import b64encode
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from ingest.booking import Booking
from ingest.errors import VerificationError
from ingest.event import Event, digest
from ingest.signing import which_matches
from ingest.vendors import Account, AccountSettings, Delivery, Proof, Reading, VerifiedDelivery
from ingest.vendors.appointedd.booking import BookingData, Record, booking_of_data
from ingest.vendors.fields import Id, Payload, Text, read_json

# What a header can carry unchanged. How Appointedd would encode anything else is not documented.
_HEADER_SAFE = re.compile(r"[!-~]([ -~]*[!-~])?")

# Only `booking_created` is documented to the letter; the others follow its pattern and the prose, in both spellings.
_CANCELLATIONS = {"booking_cancelled", "booking_canceled", "booking_deleted"}
_BOOKING_EVENTS = _CANCELLATIONS | {"booking_created", "booking_updated"}


class AppointeddSettings(AccountSettings):
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
    api: Literal["v1", "v2"] = Field(
        "v1", description="Version of the REST API: `v1`, or `v2`, which only `ingest sync` can use."
    )
    api_key: SecretStr | None = Field(None, description="API key.")
    client_id: str | None = Field(None, description="Client id for API `v2`.")
    client_secret: SecretStr | None = Field(None, description="Client secret for API `v2`.")

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        if self.webhook_header and self.webhook_user:
            raise ValueError(
                "webhook_header and webhook_user are both set; keep the one that Appointedd's webhook form has"
            )
        if self.webhook_secrets and not self.credential_header:
            raise ValueError(
                "webhook_secrets is set, but not how Appointedd sends them: set webhook_header to the custom header's name, "
                "or webhook_user to the user of basic authentication"
            )
        if not all(map(_HEADER_SAFE.fullmatch, self.live_secrets())):
            raise ValueError(
                "webhook_secrets may hold printable ASCII only, no space at either end, and not be empty"
            )
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


class _BookingEnvelope(Payload):
    event_type: Id
    event_data: BookingData


class Appointedd(Account[AppointeddSettings]):
    """A shared secret in a header proves the sender; there is no signature, delivery id, event time or attempt counter."""

    vendor = "appointedd"
    settings_model = AppointeddSettings
    signs_time = False

    @property
    def credential_header(self) -> str | None:
        """The lower-case name of the header that carries the secret itself, so that nobody keeps it."""
        return self.settings.credential_header

    def authenticate(self, delivery: Delivery) -> Proof:
        if not self.credential_header:
            raise VerificationError("the account has neither webhook_header nor webhook_user")
        given = delivery.headers.one(self.credential_header)
        if not given.isascii():
            raise VerificationError("the credential is not ASCII")
        return Proof(
            which_matches(
                [given], [self.settings.credential(secret) for secret in self.settings.live_secrets()]
            )
        )

    def read(self, delivery: VerifiedDelivery) -> Reading:
        """The id covers the raw body, which holds all that could tell two deliveries apart: organisation, type, booking, `updated`.

        No payload says when its event happened, so the time is when it was seen: of two that tie, the later seen wins.
        """
        envelope = read_json(_Envelope, delivery.body)
        return Reading(
            id=digest(self.source, delivery.body),
            type=envelope.event_type,
            subject=_subject(envelope, delivery.body) or self.source,
            time=delivery.delivery.received_by or delivery.received_at,
        )

    def booking_of_webhook(self, event: Event) -> Booking | None:
        if not read_json(_Envelope, event.data).tells_of_booking():
            return None
        envelope = read_json(_BookingEnvelope, event.data)
        return booking_of_data(envelope.event_data, cancelled=envelope.event_type in _CANCELLATIONS)

    def booking_of_record(self, data: bytes) -> Booking:
        """A booking of GET /bookings, which has ids where webhooks have names; what was looked up is put in its place.

        `service`: its id, or the object of GET /services; `resource`: its id, or the object of GET /resources (`profile.name`);
        `customers[]`: as they are, or each with the `profile` of GET /customers/{id} (firstname, lastname, email, phone, mobile).
        """
        return booking_of_data(read_json(Record, data).as_data(), cancelled=False)


def sign(settings: AppointeddSettings, secret: str) -> dict[str, str]:
    """The headers Appointedd would send, none where none is configured; for the simulator and tests."""
    return {settings.credential_header: settings.credential(secret)} if settings.credential_header else {}


def _subject(envelope: _Envelope, body: bytes) -> str | None:
    """A booking that cannot be read is refused here already, while its sender's delivery is at hand."""
    if envelope.tells_of_booking():
        return read_json(_BookingEnvelope, body).event_data.booking.id
    data = envelope.event_data
    return data.booking.id or data.customer.id or data.organisation.id


ACCOUNT = Appointedd
