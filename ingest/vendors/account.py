"""The base class of accounts: what all vendors have in common, and what each vendor defines in its folder."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import orjson
from msgspec import Struct
from pydantic import TypeAdapter, ValidationError

from ingest.booking import Booking
from ingest.clock import CLOCK_REMEDY, CLOCK_SKEW
from ingest.errors import ConfigurationError, PayloadError, WrongTime
from ingest.event import Event, Via, check_length, digest, source_of
from ingest.times import describe_duration
from ingest.vendors.account_settings import AccountSettings
from ingest.vendors.delivery import Delivery, Proof, VerifiedDelivery
from ingest.vendors.registry import load_module

if TYPE_CHECKING:
    from ingest.rest import RetryBudget
    from ingest.vendors.rest import Rest
    from ingest.vendors.subscriptions import Subscriptions

# Types of the events that reconciliation makes: for a booking that was read by REST, and for a booking that
# the vendor no longer has. The types of webhooks begin with the vendor's name, so no webhook can have these.
OBSERVED = "ingest.booking.observed"
GONE = "ingest.booking.gone"

# The type of a test delivery, after the vendor's name. No vendor has such a type, so the delivery becomes a
# row of `booking_events` and no booking.
TEST_EVENT = "ingest.test"

_BOOKING_JSON = TypeAdapter(Booking)
_TEST_ID_BYTES = 8

A = TypeVar("A", bound=AccountSettings)


class EventIdentity(Struct, frozen=True):
    """The identity of a delivery as an event, without anything about the booking itself."""

    id: str
    type: str
    subject: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Example:
    """An example account for `ingest init`.

    `account` is its name. `settings` and `secrets` are lines of TOML for the settings file and the secrets
    file. The example of the first vendor is active, all others are comments. `GENERATED` in a secret stands
    for a new random secret.
    """

    account: str
    settings: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ('webhook_secrets = ["the secret that signs webhooks"]',)


class Account(ABC, Generic[A]):
    """One account of a vendor.

    A vendor's subclass checks, identifies and maps what the vendor sends, without any I/O.
    `vendor` is the name of the vendor's folder, and `title` the name as people write it.
    `rank` is the order of vendors in lists that people see.
    `event_headers` (in lower case) and `event_parameters` (of the URL's query) are what `identify` needs
    beside the body. Dead letters keep their values.
    `signs_url` is true where a signature is only valid for the account's own URL, so that accounts may share
    a secret.
    `signs_time` is true where a signature covers the time of sending.
    """

    vendor: ClassVar[str]
    title: ClassVar[str]
    rank: ClassVar[int] = 100
    example: ClassVar[Example | None] = None
    settings_model: ClassVar[type[AccountSettings]] = AccountSettings
    event_headers: ClassVar[frozenset[str]] = frozenset()
    event_parameters: ClassVar[frozenset[str]] = frozenset()
    signs_url: ClassVar[bool] = False
    signs_time: ClassVar[bool] = True

    def __init__(self, settings: A, public_url: str) -> None:
        self.settings = settings
        self.public_url = public_url.rstrip("/")
        self.live_secrets = settings.live_secrets()  # newest first
        self.source = source_of(self.vendor, settings.name)  # the CloudEvents source of all its events

    @property
    def name(self) -> str:
        """Return the account's name in the settings, which is part of its webhook URL."""
        return self.settings.name

    @property
    def webhook_url(self) -> str:
        """Return the URL that the vendor delivers to, without a query."""
        return f"{self.public_url}/webhooks/{self.vendor}/{self.settings.name}"

    @property
    def webhook_urls(self) -> list[str]:
        """Return the URLs to register with the vendor, each with its query."""
        return [self.webhook_url + (f"?{query}" if query else "") for query in self.webhook_queries()]

    @property
    def credential_header(self) -> str | None:
        """Return the name of the header whose value is a secret and must not be kept; None for signatures."""
        return None

    def webhook_queries(self) -> list[str]:
        """Return the query of each URL to register with the vendor.

        Most vendors need one URL, without a query.
        """
        return [""]

    def verify(self, delivery: Delivery, now: datetime) -> VerifiedDelivery:
        """Verify a delivery.

        Raises VerificationError, and nothing else, when it is not authentic, too old, or from the future.
        """
        proof = self.authenticate(delivery)
        self._check_age(proof.sent_at, now)
        return VerifiedDelivery(delivery, proof)

    def parse(self, delivery: VerifiedDelivery) -> Event:
        """Return a delivery as an event, whose data are the unchanged raw bytes. Raises PayloadError."""
        identity = self.identify(delivery)
        check_length("event's id", identity.id)
        check_length("event's type", identity.type)
        check_length("subject", identity.subject)
        return Event(
            id=identity.id,
            source=self.source,
            type=f"{self.vendor}.{identity.type}",
            subject=identity.subject,
            time=identity.time,
            received_at=delivery.received_at,
            data=delivery.body,
            signed_by=delivery.proof.signed_by,
            sent_at=delivery.proof.sent_at,
            received_by=delivery.delivery.received_by,
        )

    def observe(self, record: Mapping[str, object], read_at: datetime, supersedes: str = "") -> Event:
        """Return a REST record that was read at `read_at` as an event.

        The same record gives an event with the same id. Raises PayloadError.
        """
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
            time=read_at,
            received_at=read_at,
            data=data,
            via=Via.RECONCILE,
            supersedes=supersedes,
        )

    def gone(self, booking: Booking, read_at: datetime, supersedes: str = "") -> Event:
        """Return an event which says that the vendor no longer had this booking at `read_at`.

        The event contains the last known state of the booking, because the vendor will not send it again.
        `supersedes` is the version of the warehouse's row; by default it is the booking's version.
        """
        data = _BOOKING_JSON.dump_json(booking)
        return Event(
            id=digest(self.source, GONE, data),
            source=self.source,
            type=GONE,
            subject=booking.booking_id,
            time=read_at,
            received_at=read_at,
            data=data,
            via=Via.RECONCILE,
            supersedes=supersedes or booking.version,
        )

    def booking(self, event: Event) -> Booking | None:
        """Return the booking that an event is about; None when it is about none. Raises PayloadError."""
        if event.type == OBSERVED:
            return self.booking_of_record(event.data)
        if event.type != GONE:
            return self.booking_of_webhook(event)
        try:
            return replace(_BOOKING_JSON.validate_json(event.data), gone_at=event.time)
        except ValidationError as error:
            raise PayloadError("not a booking as we store them") from error

    @abstractmethod
    def authenticate(self, delivery: Delivery) -> Proof:
        """Return which secret signed a delivery, and when it was sent. Raises VerificationError."""

    @abstractmethod
    def identify(self, delivery: VerifiedDelivery) -> EventIdentity:
        """Return the event's id, type, subject and time, also for unknown types. Raises PayloadError."""

    @abstractmethod
    def booking_of_webhook(self, event: Event) -> Booking | None:
        """Map a webhook's payload to a booking; return None when it is not about one. Raises PayloadError."""

    def booking_of_record(self, data: bytes) -> Booking:  # noqa: ARG002 - for vendors with a REST side
        """Map a REST record to a booking. Raises PayloadError."""
        raise PayloadError(f"{self.vendor} has no REST side here")

    def reports_loss(self, delivery: VerifiedDelivery) -> bool:  # noqa: ARG002 - most vendors never do
        """Return whether a delivery reports that the vendor gave up an earlier one, which is now missing."""
        return False

    def test_delivery(self) -> Delivery:
        """Return a new, harmless delivery, signed with the account's first secret.

        Raises ConfigurationError when the account has no secret.
        """
        secret = next(iter(self.live_secrets), "")
        if not secret:
            raise ConfigurationError(
                f"account {self.name} has no webhook secret: run `ingest webhooks apply {self.name}`,"
                f" or set accounts.{self.name}.webhook_secrets"
            )
        return self.compose_test(secret, f"test-{token_hex(_TEST_ID_BYTES)}", datetime.now(UTC))

    def compose_test(self, secret: str, name: str, at: datetime) -> Delivery:  # noqa: ARG002 - for subclasses
        """Return a delivery of type TEST_EVENT as the vendor would send it at this time.

        `name` makes it unique. Raises ConfigurationError where the vendor has no test delivery.
        """
        raise ConfigurationError(f"there is no test delivery for {self.vendor}: make a test booking")

    # The following members use the vendor's optional modules, which are imported when they are first used.

    @property
    def rest_class(self) -> "type[Rest[A]] | None":
        """Return the class of the account's REST side; None where the vendor has none."""
        module = load_module(self.vendor, "rest")
        return module.REST if module else None

    def rest(self, state_dir: Path, budget: "RetryBudget | None" = None) -> "Rest[A]":
        """Open the account's REST side.

        Renewed access tokens are kept in `state_dir`. `budget` limits how long a request is retried.
        Raises ConfigurationError when the vendor has no REST side, or the settings lack its credential.
        """
        rest_class = self.rest_class
        if rest_class is None:
            raise ConfigurationError(f"account {self.name}: {self.settings.without_rest()}")
        return rest_class(self, state_dir, budget)

    @property
    def subscriptions_class(self) -> "type[Subscriptions[A]] | None":
        """Return the class for the vendor's subscriptions API; None where they are made by hand."""
        module = load_module(self.vendor, "subscriptions")
        return module.SUBSCRIPTIONS if module else None

    @property
    def manages_subscriptions(self) -> bool:
        """Whether subscriptions are made by the vendor's API: it has one, and its credential is set."""
        return self.subscriptions_class is not None and self.settings.can_read()

    def subscriptions(self, state_dir: Path, budget: "RetryBudget", timeout: float) -> "Subscriptions[A]":
        """Open the vendor's API for webhook subscriptions.

        Creating a subscription may take `timeout` seconds. `state_dir` and `budget` are as for `rest`.
        Raises ConfigurationError when the vendor has no such API, or the settings lack its credential.
        """
        subscriptions_class = self.subscriptions_class
        if subscriptions_class is None:
            raise ConfigurationError(
                f"{self.vendor} has no API for webhooks:"
                f" `ingest webhooks plan {self.name}` shows what to do by hand"
            )
        if not self.settings.can_read():
            raise ConfigurationError(
                f"account {self.name}: registering its webhooks needs its REST credential:"
                f" set {self.settings.rest_needs()}"
            )
        return subscriptions_class(self.rest(state_dir, budget), timeout)

    def manual_steps(self, *, show_secret: bool) -> list[str]:  # noqa: ARG002 - for vendors that show it
        """Return the steps to register webhooks by hand, one a line.

        They are for vendors without an API for subscriptions, and for accounts without the credential for it.
        """
        name = self.name
        reason = (
            f"no REST credential is set; with accounts.{name}.{self.settings.rest_needs()},"
            f" `ingest webhooks apply {name}` does this. By hand:"
            if self.subscriptions_class
            else f"{self.vendor} has no API for webhooks. By hand:"
        )
        keep_first = " (some are set: keep it the first)" if self.live_secrets else ""
        return [
            reason,
            *(
                f"{number}. have a webhook made at {self.vendor} with URL {url}"
                for number, url in enumerate(self.webhook_urls, 1)
            ),
            (
                f"{len(self.webhook_urls) + 1}. set accounts.{name}.webhook_secrets"
                f" to the secret that signs it{keep_first}"
            ),
        ]

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
