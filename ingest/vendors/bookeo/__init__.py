"""Bookeo (API v2): one booking is one booking number; what happened is told by the query of the URL it is sent to.

Signature and delivery: https://www.bookeo.com/api/webhooks/
Payloads: https://www.bookeo.com/apiref/ (a webhook's `item` is the object that REST gives)
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, ClassVar, TypeVar
from urllib.parse import parse_qs
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

from ingest.booking import Booking, BookingStatus
from ingest.errors import PayloadError, VerificationError
from ingest.event import Event
from ingest.instant import format_instant
from ingest.signing import hmac_sha256_hex, which_matches
from ingest.vendors import Account, Delivery, Proof, Reading, Vendor, VerifiedDelivery
from ingest.vendors.account import Words
from ingest.vendors.payload import Amount, Id, MaybeInstant, Payload, Text, read_json

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
_EVENTS = {f"{domain}/{what}" for domain in ("bookings", "seatblocks", "resourceblocks", "customers", "payments") for what in _HAPPENING}


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


class BookeoAccount(Account):
    """`secret_key` is the application's and signs its webhooks; with `api_key`, the account's, it opens the REST side.

    `timezone` is the account's IANA zone: Bookeo tells offsets only. Bookeo recommends to refuse deliveries older than
    two minutes, which is `tolerance = "120s"`. `events` are what webhooks are to tell, each by a webhook of its own.
    """

    rest_credentials: ClassVar[tuple[tuple[str, ...], ...]] = (("secret_key", "api_key"),)

    secret_key: SecretStr | None = None
    api_key: SecretStr | None = None
    timezone: Annotated[str, AfterValidator(_zone)] | None = None
    events: Annotated[Words, AfterValidator(_known_events)] = tuple(f"bookings/{what}" for what in _HAPPENING)

    def live_secrets(self) -> tuple[str, ...]:
        """`webhook_secrets` where they are set, for a rotation; else the secret key."""
        own = (self.secret_key.get_secret_value(),) if self.secret_key else ()
        return super().live_secrets() or own


def _number(value: object) -> object:
    """Bookeo asks to treat booking numbers always as text, so one that JSON has as a number is its digits."""
    if value == "":
        return None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _listed(value: object) -> object:
    return () if value is None else value


T = TypeVar("T")
_Many = Annotated[tuple[T, ...], BeforeValidator(_listed)]
_Number = Annotated[Id, BeforeValidator(_number)]
_MaybeNumber = Annotated[Id | None, BeforeValidator(_number)]
# Bounded, so that no sum of them is beyond what the warehouse's integer holds.
_People = Annotated[int, Field(ge=0, le=1_000_000)]


class _Part(Payload):
    model_config = ConfigDict(alias_generator=to_camel)


class _Resource(_Part):
    id: Text = None
    name: Text = None


class _Phone(_Part):
    number: Text = None


class _Person(_Part):
    first_name: Text = None
    last_name: Text = None
    email_address: Text = None
    phone_numbers: _Many[_Phone] = ()

    def name(self) -> str | None:
        return " ".join(filter(None, (self.first_name, self.last_name))) or None

    def phone(self) -> str | None:
        return next((phone.number for phone in self.phone_numbers if phone.number), None)


class _Category(_Part):
    number: _People = 0


class _Participant(_Part):
    person_id: Text = None
    person_details: _Person | None = None


class _Participants(_Part):
    numbers: _Many[_Category] = ()
    details: _Many[_Participant] = ()

    def count(self) -> int | None:
        return sum(category.number for category in self.numbers) if self.numbers else None

    def customer(self) -> _Person | None:
        """Participant `PSELF` is the customer who booked."""
        return next((one.person_details for one in self.details if one.person_id == "PSELF"), None)


class _Money(_Part):
    amount: Amount | None = None
    currency: Text = None


class _Price(_Part):
    total_gross: _Money | None = None


class _Item(_Part):
    event_id: Text = None
    start_time: MaybeInstant = None
    end_time: MaybeInstant = None
    customer_id: Text = None
    customer: _Person | None = None
    participants: _Participants | None = None
    resources: _Many[_Resource] = ()
    canceled: bool | None = None
    cancelation_time: MaybeInstant = None
    accepted: bool | None = None
    no_show: bool | None = None
    creation_time: MaybeInstant = None
    last_change_time: MaybeInstant = None
    product_name: Text = None
    product_id: Text = None
    price: _Price | None = None

    def changed_at(self) -> datetime | None:
        """`lastChangeTime` is absent until the first change. These times look cut to the minute: quick edits share one."""
        moments = (self.last_change_time or self.creation_time, self.cancelation_time)
        return max((moment for moment in moments if moment), default=None)

    def status(self) -> BookingStatus:
        """Bookeo has no word for it, only these flags."""
        if self.no_show:
            return BookingStatus.NO_SHOW
        if self.canceled:
            return BookingStatus.CANCELLED
        return BookingStatus.PENDING if self.accepted is False else BookingStatus.CONFIRMED

    def gross(self) -> tuple[Decimal | None, str | None]:
        """Amount and currency, both or neither."""
        money = (self.price and self.price.total_gross) or _Money()
        return (None, None) if money.amount is None else (money.amount, money.currency)


class _Record(_Item):
    booking_number: _Number


class _Named(_Part):
    booking_number: _MaybeNumber = None
    id: _MaybeNumber = None


class _Envelope(_Part):
    """Any delivery, of domains we know and of those Bookeo adds later."""

    item_id: _MaybeNumber = None
    item: _Named | None = None

    def subject(self) -> str:
        item = self.item or _Named()
        subject = self.item_id or item.booking_number or item.id
        if subject is None:
            raise PayloadError("not the documented shape: neither itemId nor an id in item")
        return subject


class _BookingEnvelope(_Part):
    timestamp: MaybeInstant = None
    item: _Item | None = None


class Bookeo(Vendor[BookeoAccount]):
    """Signed with HMAC-SHA256 over timestamp, message id, registered URL and body; the message id is the event's."""

    name = "bookeo"
    Account = BookeoAccount

    def webhook_queries(self) -> list[str]:
        """Body and headers do not say what happened, so it is in the URL: one webhook, with its own query, per type."""
        return ["domain={}&type={}".format(*event.split("/")) for event in self.account.events]

    def registered_url(self, query: str) -> str:
        """What Bookeo was given and signs: our configured URL, never the one a proxy shows, and the query as it came."""
        return f"{self.webhook_url}?{query}" if query else self.webhook_url

    def authenticate(self, delivery: Delivery) -> Proof:
        sent, message_id = delivery.headers.one(TIMESTAMP), delivery.headers.one(MESSAGE_ID)
        given = delivery.headers.one(SIGNATURE)
        if not _MILLISECONDS.fullmatch(sent) or not _MESSAGE.fullmatch(message_id):
            raise VerificationError("the timestamp or the message id is garbled")
        url = self.registered_url(delivery.query)
        expected = [_signature(secret, sent, message_id, url, delivery.body) for secret in self.account.live_secrets()]
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
        return any(name == PREVIOUS_LOST and value.strip().lower() == "true" for name, value in delivery.delivery.headers.lines)

    def booking_of_webhook(self, event: Event) -> Booking | None:
        domain, _, happened = event.type.removeprefix("bookeo.").partition(".")
        if domain != "bookings":
            return None
        envelope = read_json(_BookingEnvelope, event.data)
        item = _deleted(envelope) if happened == "deleted" else envelope.item
        if item is None:
            raise PayloadError("not the documented shape: no item")
        return self._booking(event.subject, item, item.changed_at() or envelope.timestamp)

    def booking_of_record(self, data: bytes) -> Booking:
        """A booking of GET /bookings, with expandCustomer and expandParticipants."""
        record = read_json(_Record, data)
        return self._booking(record.booking_number, record, record.changed_at())

    def _booking(self, booking_id: str, item: _Item, changed_at: datetime | None) -> Booking:
        if changed_at is None:
            raise PayloadError("not the documented shape: no time of change")
        participants = item.participants or _Participants()
        customer = item.customer or participants.customer() or _Person()
        price, currency = item.gross()
        return Booking(
            booking_id=booking_id,
            version=format_instant(changed_at),
            status=item.status(),
            group_id=item.event_id,
            starts_at=item.start_time,
            ends_at=item.end_time,
            timezone=self.account.timezone,
            created_at=item.creation_time,
            updated_at=changed_at,
            service_id=item.product_id,
            service_name=item.product_name,
            staff=tuple(resource.id for resource in item.resources if resource.id),
            staff_name=next((resource.name for resource in item.resources), None),
            customer_id=item.customer_id,
            customer_name=customer.name(),
            customer_email=customer.email_address,
            customer_phone=customer.phone(),
            participants=participants.count(),
            price=price,
            currency=currency,
        )


def sign(secret: str, url: str, body: bytes, message_id: str, at: datetime) -> dict[str, str]:
    """The headers Bookeo would send to `url`, its query included; for the simulator and tests."""
    sent = str((at - _EPOCH) // _MILLISECOND)
    return {TIMESTAMP: sent, MESSAGE_ID: message_id, SIGNATURE: _signature(secret, sent, message_id, url, body)}


def _deleted(envelope: _BookingEnvelope) -> _Item:
    """`deleted` tells of a cancellation, then the item says so, or of a hard deletion, of which only the envelope tells.

    It may come without an item. Then only the row's id, status and times are known, and the rest becomes null: better
    than a booking that is gone and stays confirmed for ever. What it was is kept in `booking_events`.
    """
    item = envelope.item or _Item()
    return item if item.canceled else item.model_copy(update={"canceled": True, "cancelation_time": envelope.timestamp})


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
        raise PayloadError(f"the registered URL's query needs {name} once, as one word; run `ingest webhooks plan`")
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


VENDOR = Bookeo
