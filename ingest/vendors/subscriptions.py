"""The base class of vendors' webhook subscriptions.

A vendor with an API for subscriptions has a class `SUBSCRIPTIONS` in its folder's `subscriptions.py`. It
knows which subscriptions an account needs and which ones it has, and changes them. It uses the account's REST
side, with its credential and its limits. A request that creates something is sent once, whatever its result.
For a vendor without such an API, `Account.manual_steps` has the steps for a person.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from hashlib import sha256
from typing import Any, ClassVar, Generic, TypeVar

from ingest.errors import VendorRefused, VendorUnavailable
from ingest.rest import Record
from ingest.times import parse_instant
from ingest.vendors.account_settings import AccountSettings
from ingest.vendors.rest import Rest

A = TypeVar("A", bound=AccountSettings)

_CONNECT_SECONDS = 10.0


class SecretFrom(Enum):
    """The origin of a new subscription's secret.

    US means that we make it, and VENDOR that the vendor does. FIXED is one secret for all subscriptions,
    which is in the settings.
    """

    US = auto()
    VENDOR = auto()
    FIXED = auto()


@dataclass(frozen=True, slots=True)
class SubscriptionSpec:
    """A subscription that an account needs.

    `slot` distinguishes it from the account's other subscriptions. `url` lacks the part that makes it unique.
    """

    slot: str
    url: str
    events: frozenset[str]


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription that the vendor has.

    `stopped` says why the vendor delivers nothing any more; it is "" while the subscription is active.
    `mark` is the fingerprint of the secret, where the vendor's list shows one.
    `secret` is the secret itself, where the list has it.
    """

    id: str
    slot: str
    url: str
    events: frozenset[str]
    created_at: datetime | None = None
    stopped: str = ""
    mark: str = ""
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class NewSubscription:
    """A subscription that was just created. `secret` is "" where the vendor does not make it."""

    id: str
    secret: str = field(default="", repr=False)


def fingerprint(secret: str) -> str:
    """Return an identifier of a secret, which reveals nothing of it: our secrets have 256 random bits."""
    return sha256(secret.encode()).hexdigest()[:12]


class Subscriptions(ABC, Generic[A]):
    """The webhook subscriptions of one account.

    Every method that does I/O raises VendorRefused, and VendorUnavailable, after which the result is unknown.
    `replaces` is true where creating a subscription replaces the one in its slot.
    `tells_state` is true where the vendor's list says that a subscription was stopped.
    `retried` is how long the vendor may retry a delivery, signed with the secret of the first attempt.
    """

    replaces: ClassVar[bool] = False
    tells_state: ClassVar[bool] = True
    retried: ClassVar[timedelta] = timedelta(days=3)

    def __init__(self, rest: Rest[A], timeout: float) -> None:
        """Use a REST side. `timeout` is the number of seconds that a request may take to create something."""
        self.rest = rest
        self.account = rest.account
        self.settings = rest.settings
        self._timeout = timeout

    @property
    def secret_from(self) -> SecretFrom:
        """Return who makes the secrets, which may depend on the account's credential."""
        return SecretFrom.FIXED

    @abstractmethod
    def needed(self) -> list[SubscriptionSpec]:
        """Return the subscriptions that the settings require, without any request."""

    @abstractmethod
    def registered(self) -> list[Subscription]:
        """Return all subscriptions that the credential can see, including other people's."""

    @abstractmethod
    def create(self, spec: SubscriptionSpec, secret: str) -> NewSubscription:
        """Create a subscription; `secret` is "" where we do not make it."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a subscription by its id, if it exists."""

    def close(self) -> None:
        """Close idle connections."""
        self.rest.client.session.close()

    def _post(self, path: str, body: Record) -> Any:
        """Send a POST request once and return the response. It is not logged, as it may contain a secret."""
        url = f"{self.rest.base_url}{path}"
        return self.rest.client.session.request(
            "POST", url, json=body, timeout=(_CONNECT_SECONDS, self._timeout)
        )

    def _delete(self, path: str) -> None:
        try:
            self.rest.client.session.request("DELETE", f"{self.rest.base_url}{path}")
        except VendorRefused as error:
            if not error.is_absent:
                raise

    def _invalid_response(self, problem: str) -> VendorUnavailable:
        return VendorUnavailable(f"{self.rest.label}: {problem}; is api_url right?")


AnySubscriptions = Subscriptions[Any]


def to_events(value: object) -> frozenset[str]:
    """Return the texts of a list; an empty set where the value is no list."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        return frozenset(str(entry) for entry in value)
    return frozenset()


def to_instant(value: object) -> datetime | None:
    """Return the instant in a vendor's value, or None where there is none. Raises PayloadError."""
    return parse_instant(value) if isinstance(value, str) and value else None
