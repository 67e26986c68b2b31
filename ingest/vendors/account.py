"""One account of a vendor: what every vendor has in common, and what each one defines in its own folder."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from ingest.booking import Booking
from ingest.clock import CLOCK_REMEDY, CLOCK_SKEW
from ingest.duration import describe_duration
from ingest.errors import ConfigurationError, PayloadError, WrongTime
from ingest.event import Event, Via, check_length, digest
from ingest.vendors.account_settings import AccountSettings
from ingest.vendors.delivery import Delivery, Proof, VerifiedDelivery
from ingest.vendors.registry import load_module

if TYPE_CHECKING:
    from ingest.rest import RetryBudget
    from ingest.vendors.rest import Rest
    from ingest.vendors.subscriptions import Subscriptions

# Types of events that reconciliation makes: a booking that was read by REST, and one that the vendor no longer has. The types of webhooks
# begin with their vendor's name, so no webhook can pretend to be one of these.
OBSERVED = "ingest.booking.observed"
GONE = "ingest.booking.gone"

# The type of a test delivery, after its vendor's name. No vendor has it, so the delivery becomes a row of `booking_events` and no booking.
TEST_EVENT = "ingest.test"

_BOOKING_JSON = TypeAdapter(Booking)
_TEST_ID_BYTES = 8

A = TypeVar("A", bound=AccountSettings)


@dataclass(frozen=True, slots=True)
class EventIdentity:
    """What identifies a delivery as an event; it says nothing about the booking itself."""

    id: str
    type: str
    subject: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Example:
    """An example account for `ingest init`: its name, and lines of TOML for the settings file and the secrets file.

    The example of the first vendor is active, all others are comments. `GENERATED` in a secret stands for a new random secret.
    """

    account: str
    settings: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ('webhook_secrets = ["the secret that signs webhooks"]',)


class Account(ABC, Generic[A]):
    """One account of a vendor. A vendor's subclass checks, identifies and maps what the vendor sends, without any I/O.

    `vendor` is the name of the vendor's folder, and `title` the name as people write it. Where people see a list of vendors, it is in the
    order of `rank`.
    `event_headers` (in lower case) and `event_parameters` (of the URL's query) are what `identify` needs beside the body; dead letters
    keep their values.
    `signs_url` is true where a signature is only valid for the account's own URL, so that accounts may share a secret.
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

    @property
    def name(self) -> str:
        """Return the account's name in the settings, which is part of its webhook URL."""
        return self.settings.name

    @property
    def source(self) -> str:
        """Return the CloudEvents source of all events of this account."""
        return f"/{self.vendor}/{self.settings.name}"

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
        """Return the name of the header whose value is itself a secret, so that nobody keeps it; None for signatures."""
        return None

    def webhook_queries(self) -> list[str]:
        """Return the query of each URL to register with the vendor. Most vendors need one URL without a query."""
        return [""]

    def verify(self, delivery: Delivery, now: datetime) -> VerifiedDelivery:
        """Check a delivery. Raises VerificationError, and nothing else, when it is not authentic, too old, or from the future."""
        proof = self.authenticate(delivery)
        self._check_age(proof.sent_at, now)
        return VerifiedDelivery(delivery, proof)

    def parse(self, delivery: VerifiedDelivery) -> Event:
        """Return a delivery as an event, with the raw bytes untouched. Raises PayloadError."""
        identity = self.identify(delivery)
        for name, text in (
            ("event's id", identity.id),
            ("event's type", identity.type),
            ("subject", identity.subject),
        ):
            check_length(name, text)
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

    def observe(self, record: Mapping[str, object], seen: datetime, supersedes: str = "") -> Event:
        """Return a REST record that was read at `seen` as an event. The same record gives the same event. Raises PayloadError."""
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
        """Return an event which says that the vendor, asked at `seen`, no longer has this booking.

        The event contains the booking as it was last known, because no vendor will send it again. `supersedes` is the version of the
        warehouse's row, and the booking's own version by default.
        """
        data = _BOOKING_JSON.dump_json(booking)
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
        """Return the booking that an event is about; None when it is about something else. Raises PayloadError."""
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
        """Map a webhook's payload to a booking; return None where it is about something else. Raises PayloadError."""

    def booking_of_record(self, data: bytes) -> Booking:  # noqa: ARG002 - for vendors with a REST side
        """Map a REST record to a booking. Raises PayloadError."""
        raise PayloadError(f"{self.vendor} has no REST side here")

    def reports_loss(self, delivery: VerifiedDelivery) -> bool:  # noqa: ARG002 - most vendors never do
        """Return whether the vendor says with this delivery that it gave up an earlier one, so that one is missing."""
        return False

    def test_delivery(self) -> Delivery:
        """Return a new, harmless delivery, signed with the account's first secret. Raises ConfigurationError when it has no secret."""
        secret = next(iter(self.settings.live_secrets()), "")
        if not secret:
            raise ConfigurationError(
                f"account {self.name} has no webhook secret: run `ingest webhooks apply {self.name}`, or set accounts.{self.name}.webhook_secrets"
            )
        return self.compose_test(secret, f"test-{token_hex(_TEST_ID_BYTES)}", datetime.now(UTC))

    def compose_test(self, secret: str, name: str, at: datetime) -> Delivery:  # noqa: ARG002 - for vendors that have one
        """Return a delivery of type TEST_EVENT as the vendor would send it at this time; `name` makes it unique."""
        raise ConfigurationError(f"there is no test delivery for {self.vendor}: make a test booking")

    # What follows needs the vendor's optional modules, which are imported when they are first used.

    @property
    def rest_module(self) -> str:
        """Return the name of the module in the vendor's folder that has the REST side as `REST`."""
        return "rest"

    @property
    def rest_class(self) -> "type[Rest[A]] | None":
        """Return the class of the account's REST side; None where the vendor has none."""
        module = load_module(self.vendor, self.rest_module)
        return module.REST if module else None

    def rest(self, state_dir: Path, budget: "RetryBudget | None" = None) -> "Rest[A]":
        """Open the account's REST side. Raises ConfigurationError when the vendor has none, or the settings lack its credential.

        Access tokens that are renewed are kept in `state_dir`. `budget` limits for how long a request is tried again.
        """
        rest_class = self.rest_class
        if rest_class is None:
            raise ConfigurationError(f"account {self.name}: {self.settings.without_rest()}")
        return rest_class(self, state_dir, budget)

    @property
    def subscriptions_class(self) -> "type[Subscriptions[A]] | None":
        """Return the class that manages webhook subscriptions by the vendor's API; None where they are made by hand."""
        module = load_module(self.vendor, "subscriptions")
        return getattr(module, "SUBSCRIPTIONS", None)

    def subscriptions(self, state_dir: Path, budget: "RetryBudget", timeout: float) -> "Subscriptions[A]":
        """Open the vendor's API for webhook subscriptions; creating one may take `timeout` seconds. The rest is as for `rest`.

        Raises ConfigurationError when the vendor has no such API, or the settings lack its credential.
        """
        subscriptions_class = self.subscriptions_class
        if subscriptions_class is None:
            raise ConfigurationError(
                f"{self.vendor} has no API for webhooks: `ingest webhooks plan {self.name}` shows what to do by hand"
            )
        if not self.settings.can_read():
            raise ConfigurationError(
                f"account {self.name}: its webhooks can be registered with its REST credential only: set {self.settings.rest_needs()}"
            )
        return subscriptions_class(self.rest(state_dir, budget), timeout)

    def manual_steps(self, *, show_secret: bool) -> list[str]:
        """Return lines to follow by hand, where the vendor has no API for subscriptions, or the account no credential for it."""
        name, numbered = self.name, enumerate(self.webhook_urls, 1)
        if module := load_module(self.vendor, "subscriptions"):
            if hasattr(module, "manual_steps"):
                steps: list[str] = module.manual_steps(self, show_secret=show_secret)
                return steps
            reason = f"no REST credential is set; with accounts.{name}.{self.settings.rest_needs()}, `ingest webhooks apply {name}` does this. By hand:"
        else:
            reason = f"{self.vendor} has no API for webhooks. By hand:"
        keep_first = " (some are set: keep it the first)" if self.settings.live_secrets() else ""
        return [
            reason,
            *(f"{number}. have a webhook made at {self.vendor} with URL {url}" for number, url in numbered),
            f"{len(self.webhook_urls) + 1}. set accounts.{name}.webhook_secrets to the secret that signs it{keep_first}",
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
