"""Bookeo (API v2): one booking is one booking number; what happened is told by the query of the URL it is sent to.

Signature and delivery: https://www.bookeo.com/api/webhooks/
Payloads: https://www.bookeo.com/apiref/ (a webhook's `item` is the object that REST gives)
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar
from urllib.parse import parse_qs
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, SecretStr

from ingest.booking import Booking
from ingest.errors import PayloadError, VerificationError
from ingest.event import Event
from ingest.signing import hmac_sha256_hex, which_matches
from ingest.vendors import Account, AccountSettings, Delivery, Proof, Reading, VerifiedDelivery
from ingest.vendors.account import EVENTS, Words
from ingest.vendors.bookeo.booking import Item, MaybeNumber, Part, Record, booking_of, deleted
from ingest.vendors.fields import ABSENT, MaybeInstant, read_json

TIMESTAMP = "x-bookeo-timestamp"
MESSAGE_ID = "x-bookeo-messageid"
SIGNATURE = "x-bookeo-signature"
PREVIOUS_LOST = "x-bookeo-previousmessagelost"

# The signed parts are joined without separators. With a fixed number of digits (right until 2286) a byte moved from the
# timestamp into the message id, under the same signature, is refused.
_MILLISECONDS = re.compile(r"[0-9]{13}")
_MESSAGE = re.compile(r"[!-~]{1,200}")
_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CLOCK = re.compile(r"[0-9A-Fa-f]{11}")

_EPOCH = datetime.fromtimestamp(0, UTC)
_MILLISECOND = timedelta(milliseconds=1)

# Longer than a message is likely to be retried; Bookeo does not publish for how long that is.
_RETRIED_FOR = timedelta(days=7)


_HAPPENING = ("created", "updated", "deleted")
_EVENTS = {
    f"{domain}/{what}"
    for domain in ("bookings", "seatblocks", "resourceblocks", "customers", "payments")
    for what in _HAPPENING
}


def _known_events(events: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [event for event in events if event not in _EVENTS]:
        raise ValueError(f"Bookeo has no event {unknown[0]!r}; write for example bookings/created")
    return events


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError('not an IANA time zone; write for example "Europe/Berlin"') from None
    return value


class BookeoSettings(AccountSettings):
    """The application's key signs webhooks; with the account's key it opens the REST side.

    Bookeo recommends to refuse deliveries older than two minutes, which is `tolerance = "120s"`.
    """

    rest_credentials: ClassVar[tuple[tuple[str, ...], ...]] = (("secret_key", "api_key"),)

    secret_key: SecretStr | None = Field(
        None,
        description="The application's secret key. It also signs webhooks unless `webhook_secrets` is set.",
    )
    api_key: SecretStr | None = Field(None, description="API key.")
    timezone: Annotated[str, AfterValidator(_zone)] | None = Field(
        None, description="The account's IANA time zone, such as `Europe/Berlin`; Bookeo sends offsets only."
    )
    events: Annotated[Words, AfterValidator(_known_events)] = Field(
        tuple(f"bookings/{what}" for what in _HAPPENING),
        description=EVENTS,
    )

    def live_secrets(self) -> tuple[str, ...]:
        """`webhook_secrets` where they are set, for a rotation; else the secret key."""
        own = (self.secret_key.get_secret_value(),) if self.secret_key else ()
        return super().live_secrets() or own


class _Named(Part):
    booking_number: MaybeNumber = None
    id: MaybeNumber = None


class _Envelope(Part):
    """Any delivery, of domains we know and of those Bookeo adds later."""

    item_id: MaybeNumber = None
    item: Annotated[_Named | None, ABSENT] = None

    def subject(self) -> str:
        item = self.item or _Named()
        subject = self.item_id or item.booking_number or item.id
        if subject is None:
            raise PayloadError("not the documented shape: neither itemId nor an id in item")
        return subject


class _BookingEnvelope(Part):
    timestamp: MaybeInstant = None
    item: Annotated[Item | None, ABSENT] = None


class Bookeo(Account[BookeoSettings]):
    """Signed with HMAC-SHA256 over timestamp, message id, registered URL and body; the message id is the event's."""

    vendor = "bookeo"
    event_headers = frozenset({TIMESTAMP, MESSAGE_ID, PREVIOUS_LOST})
    event_parameters = frozenset({"domain", "type"})
    settings_model = BookeoSettings
    signs_url = True

    def webhook_queries(self) -> list[str]:
        """Body and headers do not say what happened, so it is in the URL: one webhook, with its own query, per type."""
        return ["domain={}&type={}".format(*event.split("/")) for event in self.settings.events]

    def registered_url(self, query: str) -> str:
        """What Bookeo was given and signs: our configured URL, never the one a proxy shows, and the query as it came."""
        return f"{self.webhook_url}?{query}" if query else self.webhook_url

    def authenticate(self, delivery: Delivery) -> Proof:
        sent, message_id = delivery.headers.one(TIMESTAMP), delivery.headers.one(MESSAGE_ID)
        given = delivery.headers.one(SIGNATURE)
        if not _MILLISECONDS.fullmatch(sent) or not _MESSAGE.fullmatch(message_id):
            raise VerificationError("the timestamp or the message id is garbled")
        url = self.registered_url(delivery.query)
        expected = [
            _signature(secret, sent, message_id, url, delivery.body)
            for secret in self.settings.live_secrets()
        ]
        return Proof(which_matches([given], expected), _moment(sent))

    def read(self, delivery: VerifiedDelivery) -> Reading:
        headers = delivery.delivery.headers
        message_id = headers.one(MESSAGE_ID)
        return Reading(
            id=message_id,
            type=_type(delivery.delivery.query),
            subject=read_json(_Envelope, delivery.body).subject(),
            time=_happened_at(message_id, _moment(headers.one(TIMESTAMP))),
        )

    def reports_loss(self, delivery: VerifiedDelivery) -> bool:
        """Whether Bookeo dropped an earlier message of this webhook. https://www.bookeo.com/api/webhooks/

        The header is not signed, so it may cause a look at the REST side and nothing else.
        """
        return any(
            name == PREVIOUS_LOST and value.strip().lower() == "true"
            for name, value in delivery.delivery.headers.lines
        )

    def booking_of_webhook(self, event: Event) -> Booking | None:
        domain, _, happened = event.type.removeprefix("bookeo.").partition(".")
        if domain != "bookings":
            return None
        envelope = read_json(_BookingEnvelope, event.data)
        item = deleted(envelope.item, envelope.timestamp) if happened == "deleted" else envelope.item
        if item is None:
            raise PayloadError("not the documented shape: no item")
        return booking_of(
            event.subject, item, item.changed_at() or envelope.timestamp, self.settings.timezone
        )

    def booking_of_record(self, data: bytes) -> Booking:
        """A booking of GET /bookings, with expandCustomer and expandParticipants."""
        record = read_json(Record, data)
        return booking_of(record.booking_number, record, record.changed_at(), self.settings.timezone)


def sign(secret: str, url: str, body: bytes, message_id: str, at: datetime) -> dict[str, str]:
    """The headers Bookeo would send to `url`, its query included; for the simulator and tests."""
    sent = str((at - _EPOCH) // _MILLISECOND)
    return {
        TIMESTAMP: sent,
        MESSAGE_ID: message_id,
        SIGNATURE: _signature(secret, sent, message_id, url, body),
    }


def _signature(secret: str, sent: str, message_id: str, url: str, body: bytes) -> str:
    return hmac_sha256_hex(secret, sent.encode(), message_id.encode(), url.encode(), body)


def _moment(milliseconds: str, base: int = 10) -> datetime:
    return _EPOCH + int(milliseconds, base) * _MILLISECOND


def _type(query: str) -> str:
    """`bookings.created` from `domain=bookings&type=created`: neither body nor headers tell, and the signature covers it."""
    fields = parse_qs(query, keep_blank_values=True)
    return f"{_only(fields, 'domain')}.{_only(fields, 'type')}"


def _only(fields: dict[str, list[str]], name: str) -> str:
    values = fields.get(name, [])
    if len(values) != 1 or not _WORD.fullmatch(values[0]):
        raise PayloadError(
            f"the registered URL's query needs {name} once, as one word; run `ingest webhooks plan`"
        )
    return values[0]


def _happened_at(message_id: str, sent_at: datetime) -> datetime:
    """When the message was made: what orders two events of one booking whose versions are the same minute.

    The header's time is the attempt's, so a retried older message would look newer. The message id stays, and Bookeo's
    ids end in their own time, as eleven hexadecimal digits of milliseconds. That is seen, not promised (in the published
    example the body's minute, its ids' times and the header's follow each other), so it must make sense beside the header.
    """
    clock = message_id[-11:]
    if not _CLOCK.fullmatch(clock):
        return sent_at
    made_at = _moment(clock, 16)
    return made_at if timedelta(0) <= sent_at - made_at <= _RETRIED_FOR else sent_at


ACCOUNT = Bookeo
