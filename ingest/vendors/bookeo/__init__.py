"""Webhooks and bookings of Bookeo (API v2).

A booking number identifies one booking. The query of the webhook's URL says what happened.

Signature and delivery: https://www.bookeo.com/api/webhooks/
Payloads: https://www.bookeo.com/apiref/ (a webhook's `item` is the object that REST gives)
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import ClassVar
from urllib.parse import parse_qs
from zoneinfo import ZoneInfo

import orjson
from msgspec import UNSET, Struct
from pydantic import Field, SecretStr, field_validator

from ingest.booking import Booking
from ingest.errors import PayloadError, VerificationError
from ingest.event import Event
from ingest.signing import hmac_sha256_hex, which_matches
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
from ingest.vendors.bookeo.booking import Item, Record, booking_of, mark_deleted, read_number
from ingest.vendors.delivery import Headers
from ingest.vendors.fields import (
    MaybeObject,
    NoObject,
    read_fields,
    read_id,
    read_maybe_instant,
    read_maybe_part,
)

TIMESTAMP = "x-bookeo-timestamp"
MESSAGE_ID = "x-bookeo-messageid"
SIGNATURE = "x-bookeo-signature"
PREVIOUS_LOST = "x-bookeo-previousmessagelost"

# The signed parts are joined without separators, so a byte could be moved from the timestamp into the message
# id under the same signature. A fixed number of digits (right until 2286) makes sure that such a delivery is
# refused.
_MILLISECONDS = re.compile(r"[0-9]{13}")
_MESSAGE_ID = re.compile(r"[!-~]{1,200}")
_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ID_CLOCK = re.compile(r"[0-9A-Fa-f]{11}")

_EPOCH = datetime.fromtimestamp(0, UTC)
_MILLISECOND = timedelta(milliseconds=1)

# This is longer than a message is likely to be retried. Bookeo does not publish for how long it retries.
_RETRY_SPAN = timedelta(days=7)

_CHANGES = ("created", "updated", "deleted")
_EVENTS = {
    f"{domain}/{change}"
    for domain in ("bookings", "seatblocks", "resourceblocks", "customers", "payments")
    for change in _CHANGES
}


class BookeoSettings(AccountSettings):
    """The settings of a Bookeo account.

    The application's secret key signs webhooks. The REST side needs it together with the account's API key.
    Bookeo recommends refusing deliveries older than two minutes, which is `tolerance = "120s"`.
    """

    rest_credentials: ClassVar[tuple[tuple[str, ...], ...]] = (("secret_key", "api_key"),)

    secret_key: SecretStr | None = Field(
        None,
        description="The application's secret key. It also signs webhooks unless `webhook_secrets` is set.",
    )
    api_key: SecretStr | None = Field(None, description="API key.")
    timezone: str | None = Field(
        None, description="The account's IANA time zone, such as `Europe/Berlin`; Bookeo sends offsets only."
    )
    events: Words = Field(
        tuple(f"bookings/{change}" for change in _CHANGES),
        description=EVENTS_DESCRIPTION,
    )

    @field_validator("timezone")
    @classmethod
    def _check_zone(cls, zone: str | None) -> str | None:
        try:
            if zone is not None:
                ZoneInfo(zone)
        except (KeyError, ValueError, OSError):
            raise ValueError('not an IANA time zone; write for example "Europe/Berlin"') from None
        return zone

    @field_validator("events")
    @classmethod
    def _check_events(cls, events: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [event for event in events if event not in _EVENTS]:
            raise ValueError(f"Bookeo has no event {unknown[0]!r}; write for example bookings/created")
        return events

    def live_secrets(self) -> tuple[str, ...]:
        """Return `webhook_secrets` where they are set, as during a rotation; else the secret key."""
        secret_key = (self.secret_key.get_secret_value(),) if self.secret_key else ()
        return super().live_secrets() or secret_key


class _ItemId(Struct, rename="camel"):
    booking_number: object = None
    id: object = None


class _Envelope(Struct, rename="camel"):
    """The fields that identify any event, including those of domains that Bookeo adds later."""

    item_id: object = None
    item: _ItemId | NoObject = None

    def subject(self) -> str:
        """Return the id of what the delivery is about. Raises PayloadError when there is none."""
        item = self.item if isinstance(self.item, _ItemId) else _ItemId()
        ids = {"itemId": self.item_id, "item.bookingNumber": item.booking_number, "item.id": item.id}
        for field, value in ids.items():
            if (number := read_number(value)) is not None:
                return read_id(field, number)
        raise PayloadError("not the documented shape: neither itemId nor an id in item")


class _BookingEnvelope(Struct):
    timestamp: object = UNSET
    item: MaybeObject[Item] = UNSET


class Bookeo(Account[BookeoSettings]):
    """An account of Bookeo.

    Deliveries are signed with HMAC-SHA256 over timestamp, message id, registered URL and body. The message id
    is the event's id.
    """

    vendor = "bookeo"
    title = "Bookeo"
    rank = 4
    example = Example(
        account="tours",
        secrets=(
            'secret_key = "your Bookeo application\'s secret key"',
            'api_key = "the account\'s API key"',
        ),
    )
    event_headers = frozenset({TIMESTAMP, MESSAGE_ID, PREVIOUS_LOST})
    event_parameters = frozenset({"domain", "type"})
    settings_model = BookeoSettings
    signs_url = True

    def webhook_queries(self) -> list[str]:
        """Return a query for each event.

        Neither body nor headers say what happened, so each event has a webhook and a URL.
        """
        return ["domain={}&type={}".format(*event.split("/")) for event in self.settings.events]

    def registered_url(self, query: str) -> str:
        """Return the URL that Bookeo signs.

        It consists of the configured URL, never that which a proxy shows, and the query as it was received.
        """
        return f"{self.webhook_url}?{query}" if query else self.webhook_url

    def authenticate(self, delivery: Delivery) -> Proof:
        headers = delivery.headers
        sent, message_id = headers.get_single(TIMESTAMP), headers.get_single(MESSAGE_ID)
        signature = headers.get_single(SIGNATURE)
        if not _MILLISECONDS.fullmatch(sent) or not _MESSAGE_ID.fullmatch(message_id):
            raise VerificationError("the timestamp or the message id is garbled")
        url = self.registered_url(delivery.query)
        expected = [_signature(secret, sent, message_id, url, delivery.body) for secret in self.live_secrets]
        return Proof(which_matches([signature], expected), _from_milliseconds(sent))

    def identify(self, delivery: VerifiedDelivery) -> EventIdentity:
        """Identify a delivery, whose type is such as `bookings.created` for `domain=bookings&type=created`.

        The signature covers the query.
        """
        headers = delivery.delivery.headers
        message_id = headers.get_single(MESSAGE_ID)
        return EventIdentity(
            id=message_id,
            type=_event_type(delivery.delivery.query),
            subject=read_fields(_Envelope, delivery.body).subject(),
            time=_creation_time(message_id, _from_milliseconds(headers.get_single(TIMESTAMP))),
        )

    def reports_loss(self, delivery: VerifiedDelivery) -> bool:
        """Return whether Bookeo dropped an earlier message of this webhook.

        The header is not signed, so it must have no other effect than a reconciliation.
        https://www.bookeo.com/api/webhooks/
        """
        return any(
            name == PREVIOUS_LOST and value.strip().lower() == "true"
            for name, value in delivery.delivery.headers.lines
        )

    def booking_of_webhook(self, event: Event) -> Booking | None:
        domain, _, change = event.type.removeprefix("bookeo.").partition(".")
        if domain != "bookings":
            return None
        envelope = read_fields(_BookingEnvelope, event.data)
        sent_at = read_maybe_instant("timestamp", envelope.timestamp)
        item = read_maybe_part("item", Item, envelope.item)
        if change == "deleted":
            item = mark_deleted(item, sent_at)
        if item is None:
            raise PayloadError("not the documented shape: no item")
        return booking_of(event.subject, item, item.changed_at() or sent_at, self.settings.timezone)

    def booking_of_record(self, data: bytes) -> Booking:
        """Map a booking of GET /bookings, with expandCustomer and expandParticipants."""
        record = read_fields(Record, data)
        booking_id = read_id("bookingNumber", read_number(record.booking_number))
        return booking_of(booking_id, record, record.changed_at(), self.settings.timezone)

    def compose_test(self, secret: str, name: str, at: datetime) -> Delivery:
        query = "domain={}&type={}".format(*TEST_EVENT.split("."))
        body = orjson.dumps({"itemId": name, "timestamp": format_instant(at)})
        headers = sign(secret, self.registered_url(query), body, name, at)
        return Delivery(query, Headers.of(headers.items()), body, at)


def sign(secret: str, url: str, body: bytes, message_id: str, at: datetime) -> dict[str, str]:
    """Return the headers that Bookeo would send to `url`, which includes the query.

    The simulator and tests use them.
    """
    sent = str((at - _EPOCH) // _MILLISECOND)
    return {
        TIMESTAMP: sent,
        MESSAGE_ID: message_id,
        SIGNATURE: _signature(secret, sent, message_id, url, body),
    }


def _signature(secret: str, sent: str, message_id: str, url: str, body: bytes) -> str:
    return hmac_sha256_hex(secret, sent.encode(), message_id.encode(), url.encode(), body)


def _from_milliseconds(milliseconds: str, base: int = 10) -> datetime:
    return _EPOCH + int(milliseconds, base) * _MILLISECOND


@lru_cache(100)  # an account has a URL for each event
def _event_type(query: str) -> str:
    """Return the type that a registered URL's query names. Raises PayloadError."""
    parameters = parse_qs(query, keep_blank_values=True)
    return f"{_single_word(parameters, 'domain')}.{_single_word(parameters, 'type')}"


def _single_word(parameters: dict[str, list[str]], name: str) -> str:
    """Return a parameter's value. Raises PayloadError when it is missing, repeated or not a word."""
    values = parameters.get(name, [])
    if len(values) != 1 or not _WORD.fullmatch(values[0]):
        raise PayloadError(
            f"the registered URL's query needs {name} once, as one word; run `ingest webhooks plan`"
        )
    return values[0]


def _creation_time(message_id: str, sent_at: datetime) -> datetime:
    """Return when the message was created.

    This time orders two events of one booking whose versions are the same minute.

    The header has the time of the attempt, so a retried older message would look newer. The message id stays
    the same, and Bookeo's ids end with the time of their creation, as eleven hexadecimal digits of
    milliseconds. That was observed and is not documented (in the published example the body's minute, the
    ids' times and the header's time follow each other). So the id's time is only used where it is plausible
    beside the header's.
    """
    clock = message_id[-11:]
    if not _ID_CLOCK.fullmatch(clock):
        return sent_at
    created_at = _from_milliseconds(clock, 16)
    return created_at if timedelta(0) <= sent_at - created_at <= _RETRY_SPAN else sent_at


ACCOUNT = Bookeo
