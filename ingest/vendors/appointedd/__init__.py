"""Webhooks and bookings of Appointedd (webhooks and API v1).

A booking has any number of participants, or none. Nothing that Appointedd sends is signed.

Webhooks: https://developers.appointedd.com/docs/webhooks
Payloads: https://developers.appointedd.com/docs/what-data-is-sent-with-a-webhook
Set-up:   https://support.appointedd.com/en/articles/1361736-how-to-set-up-webhooks
REST:     https://developers.appointedd.com/reference/booking-entity
"""

import re
from base64 import b64encode
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import orjson
from msgspec import Struct
from pydantic import Field, SecretStr, model_validator

from ingest.booking import Booking
from ingest.errors import VerificationError
from ingest.event import Event, digest
from ingest.signing import which_matches
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
from ingest.vendors.appointedd.booking import BookingData, Record, booking_of_data
from ingest.vendors.delivery import Headers
from ingest.vendors.fields import NoObject, read_fields, read_id, read_text

if TYPE_CHECKING:
    from ingest.vendors.rest import Rest

# A header can contain such text unchanged. How Appointedd would encode anything else is not documented.
_HEADER_SAFE = re.compile(r"[!-~]([ -~]*[!-~])?")

# Only `booking_created` is documented exactly. The other names follow its pattern and the documentation's
# prose, in both spellings.
_CANCELLATIONS = {"booking_cancelled", "booking_canceled", "booking_deleted"}
_BOOKING_EVENTS = _CANCELLATIONS | {"booking_created", "booking_updated"}

_TRIGGERS = ("Booking created", "Booking updated", "Booking cancelled")


class AppointeddSettings(AccountSettings):
    """The settings of an Appointedd account.

    Appointedd's webhook form offers a custom header or basic authentication. The settings say which of them
    was filled in. The REST side needs `api_key` with `api = "v1"`, and `client_id` and `client_secret` with
    `"v2"`.
    """

    rest_credentials: ClassVar[tuple[tuple[str, ...], ...]] = (("api_key",), ("client_id", "client_secret"))

    webhook_header: str | None = Field(
        None,
        pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
        description=(
            "Name of the custom header in Appointedd's webhook form. Its value is one of `webhook_secrets`."
        ),
    )
    webhook_user: str | None = Field(
        None,
        pattern=r"^[ -9;-~]+$",
        description=(
            "User of basic authentication, instead of `webhook_header`. "
            "The password is one of `webhook_secrets`."
        ),
    )
    api: Literal["v1", "v2"] = Field(
        "v1", description="Version of the REST API: `v1`, or `v2`, which only `ingest sync` can use."
    )
    api_key: SecretStr | None = Field(None, description="API key.")
    client_id: str | None = Field(None, description="Client id for API `v2`.")
    client_secret: SecretStr | None = Field(None, description="Client secret for API `v2`.")

    @model_validator(mode="after")
    def _check_webhook_credential(self) -> Self:
        if self.webhook_header and self.webhook_user:
            raise ValueError(
                "webhook_header and webhook_user are both set; "
                "keep the one that Appointedd's webhook form has"
            )
        if self.webhook_secrets and not self.credential_header:
            raise ValueError(
                "webhook_secrets is set, but not how Appointedd sends them: "
                "set webhook_header to the custom header's name, "
                "or webhook_user to the user of basic authentication"
            )
        if not all(map(_HEADER_SAFE.fullmatch, self.live_secrets())):
            raise ValueError(
                "webhook_secrets must be printable ASCII, not empty, and without a space at either end"
            )
        return self

    @property
    def credential_header(self) -> str | None:
        """Return the lower-case name of the header that contains the secret.

        Return None when neither kind of header is configured.
        """
        if self.webhook_user:
            return "authorization"
        return self.webhook_header.lower() if self.webhook_header else None

    def can_reconcile(self) -> bool:
        """Return whether API v1 can be used.

        The form of v2's bookings is not published.
        """
        return self.api == "v1" and self.api_key is not None

    def reconcile_needs(self) -> str:
        """Return the names of the settings that API v1 needs, in words."""
        return "api_key, and api to v1" if self.api != "v1" else "api_key"

    def credential(self, secret: str) -> str:
        """Return the value of `credential_header` that contains this secret."""
        if not self.webhook_user:
            return secret
        return "Basic " + b64encode(f"{self.webhook_user}:{secret}".encode()).decode()


class _Entity(Struct):
    id: object = None


class _Data(Struct):
    organisation: _Entity | NoObject = None
    customer: _Entity | NoObject = None
    booking: _Entity | NoObject = None


class _Envelope(Struct):
    """The fields that identify any event, including events that Appointedd adds later.

    Only the type is required.
    """

    event_type: object = None
    event_data: _Data | NoObject = None

    def entity(self, name: str) -> object:
        """Return the id of an entity in the data as it is; None where there is none."""
        entity = getattr(self.event_data, name, None)
        return entity.id if isinstance(entity, _Entity) else None

    def has_booking(self) -> bool:
        """Return whether the delivery is about a booking. Raises PayloadError.

        The known types always are. Other types are if they have a similar name and the delivery contains a
        booking.
        """
        event_type = read_id("event_type", self.event_type)
        is_similar = event_type.startswith("booking_") and read_text(self.entity("booking")) is not None
        return is_similar or event_type in _BOOKING_EVENTS


class _BookingEnvelope(Struct):
    event_data: BookingData


class Appointedd(Account[AppointeddSettings]):
    """An account of Appointedd.

    A shared secret in a header proves the sender. There is no signature, delivery id, event time or attempt
    counter.
    """

    vendor = "appointedd"
    title = "Appointedd"
    rank = 3
    example = Example(
        account="salon",
        settings=(
            'webhook_header = "X-Webhook-Token"             # or webhook_user = "…" for basic authentication',
        ),
        secrets=(
            'webhook_secrets = ["the value of the header you set in Appointedd, long and random"]',
            'api_key = "the organisation\'s API key"',
        ),
    )
    settings_model = AppointeddSettings
    signs_time = False

    @property
    def credential_header(self) -> str | None:
        return self.settings.credential_header

    @property
    def rest_class(self) -> "type[Rest[AppointeddSettings]]":
        """Return the class for the API that the settings name."""
        from ingest.vendors.appointedd.rest import AppointeddV1, AppointeddV2

        return AppointeddV1 if self.settings.api == "v1" else AppointeddV2

    def authenticate(self, delivery: Delivery) -> Proof:
        if not self.credential_header:
            raise VerificationError("the account has neither webhook_header nor webhook_user")
        credential = delivery.headers.get_single(self.credential_header)
        if not credential.isascii():
            raise VerificationError("the credential is not ASCII")
        expected = [self.settings.credential(secret) for secret in self.live_secrets]
        return Proof(which_matches([credential], expected))

    def identify(self, delivery: VerifiedDelivery) -> EventIdentity:
        """Identify a delivery by its raw body.

        Organisation, type, booking and `updated` in the body distinguish two deliveries. No payload says when
        its event happened, so the time is that of receipt. If two versions tie, the one received later wins.
        """
        envelope = read_fields(_Envelope, delivery.body)
        if envelope.has_booking():
            subject = read_id("event_data.booking.id", envelope.entity("booking"))
        else:
            ids = (read_text(envelope.entity(name)) for name in ("booking", "customer", "organisation"))
            subject = next(filter(None, ids), self.source)
        return EventIdentity(
            id=digest(self.source, delivery.body),
            type=read_id("event_type", envelope.event_type),
            subject=subject,
            time=delivery.delivery.received_by or delivery.received_at,
        )

    def booking_of_webhook(self, event: Event) -> Booking | None:
        event_type = event.type.removeprefix("appointedd.")
        if event_type not in _BOOKING_EVENTS and not read_fields(_Envelope, event.data).has_booking():
            return None
        data = read_fields(_BookingEnvelope, event.data).event_data
        return booking_of_data(data, cancelled=event_type in _CANCELLATIONS)

    def booking_of_record(self, data: bytes) -> Booking:
        """Map a booking of GET /bookings.

        Such a booking has ids where webhooks have names. Objects may have replaced the ids:

        - `service` is an id, or the object of GET /services.
        - `resource` is an id, or the object of GET /resources (`profile.name`).
        - `customers[]` are unchanged, or each has the `profile` of GET /customers/{id}
          (firstname, lastname, email, phone, mobile).
        """
        return booking_of_data(read_fields(Record, data).as_data(), cancelled=False)

    def compose_test(self, secret: str, name: str, at: datetime) -> Delivery:
        body = orjson.dumps({"event_type": TEST_EVENT, "event_data": {"organisation": {"id": name}}})
        return Delivery("", Headers.of(sign(self.settings, secret).items()), body, at)

    def manual_steps(self, *, show_secret: bool) -> list[str]:
        """Return the steps to create webhooks by hand, because Appointedd has no API for them.

        With API v1: https://developers.appointedd.com/docs/webhooks.
        With API v2, webhooks are created in the Enterprise Management Console. Each webhook has one trigger.
        """
        site = (
            "the Enterprise Management Console, Webhooks V2"
            if self.settings.api == "v2"
            else "app.appointedd.com, Connect, Create webhooks"
        )
        steps = [
            f"{number}. make one with trigger “{trigger}”, URL {self.webhook_url}"
            for number, trigger in enumerate(_TRIGGERS, 1)
        ]
        return [f"in {site}:", *steps, f"in each: {self._form_entry(show_secret=show_secret)}"]

    def _form_entry(self, *, show_secret: bool) -> str:
        """Return the header to enter in the webhook form, or the settings to set first."""
        settings, newest = self.settings, next(iter(self.settings.live_secrets()), "")
        needed = (("webhook_header", settings.credential_header), ("webhook_secrets", newest))
        if missing := [name for name, value in needed if not value]:
            return f"a custom header; first set accounts.{settings.name}.{' and '.join(missing)}"
        value = (
            newest
            if show_secret
            else f"the first of accounts.{settings.name}.webhook_secrets (--print-secrets shows it)"
        )
        if settings.webhook_user:
            return f"basic authentication, user {settings.webhook_user}, password {value}"
        return f"custom header {settings.webhook_header}, value {value}"


def sign(settings: AppointeddSettings, secret: str) -> dict[str, str]:
    """Return the headers that Appointedd would send; none where none is configured.

    The simulator and tests use them.
    """
    return {settings.credential_header: settings.credential(secret)} if settings.credential_header else {}


ACCOUNT = Appointedd
