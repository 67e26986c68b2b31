"""The four vendors behind one interface; each is one folder here, loaded by the name the settings use.

The rule is *verify, then parse, on the raw bytes*: only `Account.verify` makes a `VerifiedDelivery` of a request, and only that can be parsed.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar, Generic, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from ingest.booking import Booking
from ingest.clock import CLOCK_REMEDY, CLOCK_SKEW
from ingest.duration import describe_duration
from ingest.errors import ConfigurationError, PayloadError, WrongTime
from ingest.event import Event, Via, check_length, digest
from ingest.vendors.account import AccountSettings, split_list
from ingest.vendors.delivery import Delivery, Proof, VerifiedDelivery

# The types of what we read, and of what we no longer find, by REST. Webhooks' begin with their vendor's name, so none can pretend to be these.
OBSERVED = "ingest.booking.observed"
GONE = "ingest.booking.gone"

_AS_STORED = TypeAdapter(Booking)

A = TypeVar("A", bound=AccountSettings)


@dataclass(frozen=True, slots=True)
class Reading:
    """What `parse` found in a delivery: enough to make an event of it, nothing of the booking itself."""

    id: str
    type: str
    subject: str
    time: datetime


class Account(ABC, Generic[A]):
    """One account of a vendor: authenticity, identity and meaning of what it sends. Pure: values in, values out."""

    vendor: ClassVar[str]
    # The headers (in lower case) and the parameters of the URL's query that `read` needs beside the body: a dead letter keeps their values.
    event_headers: ClassVar[frozenset[str]] = frozenset()
    event_parameters: ClassVar[frozenset[str]] = frozenset()
    settings_model: ClassVar[type[AccountSettings]] = AccountSettings
    # Whether a signature holds for the account's URL alone, so that accounts may share a secret.
    signs_url: ClassVar[bool] = False
    # Whether a delivery says when it was sent, under its signature.
    signs_time: ClassVar[bool] = True

    def __init__(self, settings: A, public_url: str) -> None:
        self.settings = settings
        self.public_url = public_url.rstrip("/")

    @property
    def name(self) -> str:
        """Return the account's name in the settings, which is in its webhook URL."""
        return self.settings.name

    @property
    def source(self) -> str:
        """The CloudEvents source of everything from this account."""
        return f"/{self.vendor}/{self.settings.name}"

    @property
    def webhook_url(self) -> str:
        """What the vendor was given, without a query."""
        return f"{self.public_url}/webhooks/{self.vendor}/{self.settings.name}"

    @property
    def credential_header(self) -> str | None:
        """The header whose value is itself a secret, not a signature: it is never kept. None where there is none."""
        return None

    def webhook_queries(self) -> list[str]:
        """The query of each URL to register with the vendor; most need one URL without a query."""
        return [""]

    def verify(self, delivery: Delivery, now: datetime) -> VerifiedDelivery:
        """Raises VerificationError, and nothing else, when the delivery is not authentic or not of its time."""
        proof = self.authenticate(delivery)
        self._check_age(proof.sent_at, now)
        return VerifiedDelivery(delivery, proof)

    def parse(self, delivery: VerifiedDelivery) -> Event:
        """The event in it, the raw bytes untouched. Raises PayloadError."""
        reading = self.read(delivery)
        for name, text in (
            ("event's id", reading.id),
            ("event's type", reading.type),
            ("subject", reading.subject),
        ):
            check_length(name, text)
        return Event(
            id=reading.id,
            source=self.source,
            type=f"{self.vendor}.{reading.type}",
            subject=reading.subject,
            time=reading.time,
            received_at=delivery.received_at,
            data=delivery.body,
            signed_by=delivery.proof.signed_by,
            sent_at=delivery.proof.sent_at,
            received_by=delivery.delivery.received_by,
        )

    def observe(self, record: Mapping[str, object], seen: datetime, supersedes: str = "") -> Event:
        """A REST record, as read at `seen`, as an event; the same record read twice is the same event. Raises PayloadError."""
        try:
            data = orjson.dumps(record, option=orjson.OPT_SORT_KEYS)
        except TypeError as error:
            raise PayloadError(f"the record is not JSON: {error}") from error
        subject = self.booking_of_record(data).booking_id
        check_length("booking's id", subject)
        return Event(
            id=digest(self.source, subject, data, supersedes),
            source=self.source,
            type=OBSERVED,
            subject=subject,
            time=seen,
            received_at=seen,
            data=data,
            via=Via.RECONCILE,
            supersedes=supersedes,
        )

    def gone(self, booking: Booking, seen: datetime, supersedes: str = "") -> Event:
        """That the vendor no longer has this booking, found at `seen`; what it was comes along, as no vendor will tell it again.

        `supersedes` is the version of the row, the booking's own where it is not told.
        """
        data = _AS_STORED.dump_json(booking)
        return Event(
            id=digest(self.source, GONE, data),
            source=self.source,
            type=GONE,
            subject=booking.booking_id,
            time=seen,
            received_at=seen,
            data=data,
            via=Via.RECONCILE,
            supersedes=supersedes or booking.version,
        )

    def booking(self, event: Event) -> Booking | None:
        """The booking an event tells of, None when it tells of something else. Raises PayloadError."""
        if event.type == OBSERVED:
            return self.booking_of_record(event.data)
        if event.type == GONE:
            return _as_gone(event)
        return self.booking_of_webhook(event)

    @abstractmethod
    def authenticate(self, delivery: Delivery) -> Proof:
        """Which secret signed it and when it was sent. Raises VerificationError."""

    @abstractmethod
    def read(self, delivery: VerifiedDelivery) -> Reading:
        """Identity, type, subject and time. Unknown types are read too. Raises PayloadError."""

    @abstractmethod
    def booking_of_webhook(self, event: Event) -> Booking | None:
        """From the webhook's shape. Raises PayloadError."""

    @abstractmethod
    def booking_of_record(self, data: bytes) -> Booking:
        """From the REST shape. Raises PayloadError."""

    def reports_loss(self, delivery: VerifiedDelivery) -> bool:  # noqa: ARG002 - most vendors never tell
        """Whether the vendor says with this delivery that it gave up an earlier one, so that something is missing here."""
        return False

    def _check_age(self, sent_at: datetime | None, now: datetime) -> None:
        if sent_at is None:
            return
        if sent_at - now > CLOCK_SKEW:
            ahead = describe_duration(sent_at - now)
            raise WrongTime(
                f"sent {ahead} in the future by this machine's clock; if that is behind, {CLOCK_REMEDY}",
                sent_at,
            )
        if self.settings.tolerance is not None and now - sent_at > self.settings.tolerance:
            age, limit = describe_duration(now - sent_at), describe_duration(self.settings.tolerance)
            raise WrongTime(
                f"sent {age} ago by this machine's clock, and the account's tolerance is {limit}:"
                " a late retry, a clock that is fast, or a delivery that somebody sends again",
                sent_at,
            )


AnyAccount = Account[AccountSettings]


def _as_gone(event: Event) -> Booking:
    try:
        return replace(_AS_STORED.validate_json(event.data), gone_at=event.time)
    except ValidationError as error:
        raise PayloadError("not a booking as we store them") from error


def vendor_names() -> list[str]:
    """Every folder here: each is a vendor."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def load_account_class(name: str) -> type[AnyAccount]:
    """The vendor's class by the name of its folder. Raises ConfigurationError."""
    if name not in vendor_names():
        raise ConfigurationError(f"unknown vendor {name!r}: known are {', '.join(vendor_names())}")
    module = importlib.import_module(f"ingest.vendors.{name}")
    found: type[AnyAccount] = module.ACCOUNT
    return found


__all__ = [
    "Account",
    "AccountSettings",
    "AnyAccount",
    "Delivery",
    "Proof",
    "Reading",
    "VerifiedDelivery",
    "load_account_class",
    "split_list",
    "vendor_names",
]
