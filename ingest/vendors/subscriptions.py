"""A vendor's webhook subscriptions: what one account is to have, what it has, and the calls that change it.

Each vendor's are in `ingest/vendors/<name>/subscriptions.py` as `SUBSCRIPTIONS`. They speak through the account's REST side,
and so share its credential, its limits and its patience: what creates something is sent once, whatever became of it.
Where a vendor has no API for them, that module has `manual_steps` in its stead.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from hashlib import sha256
from typing import Any, ClassVar, Generic, TypeVar

from ingest.errors import VendorRefused, VendorUnavailable
from ingest.instant import parse_instant
from ingest.rest import Record
from ingest.vendors import AccountSettings, AnyAccount
from ingest.vendors.rest import Rest

A = TypeVar("A", bound=AccountSettings)

_CONNECT_SECONDS = 10.0


class SecretFrom(Enum):
    """Who makes the secret of a new subscription; FIXED where there is one for all, and the settings have it."""

    US = auto()
    VENDOR = auto()
    FIXED = auto()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A subscription that is to be. `slot` tells it from the account's others; `url` is without what makes it unique."""

    slot: str
    url: str
    events: frozenset[str]


@dataclass(frozen=True, slots=True)
class Registered:
    """A subscription that the vendor has. `stopped`: why nothing is delivered any more, "" as long as something is.

    `mark` is its secret's fingerprint where what the vendor tells shows it; `secret` the secret itself, where vendors tell that.
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
class Created:
    """`secret` is "" where the vendor does not make it."""

    id: str
    secret: str = field(default="", repr=False)


def fingerprint(secret: str) -> str:
    """Says which secret, and nothing of it: ours are of 256 random bits."""
    return sha256(secret.encode()).hexdigest()[:12]


class Subscriptions(ABC, Generic[A]):
    """Of one account. Whatever does I/O raises VendorUnavailable, after which nobody knows what was done, and VendorRefused.

    `replaces`: creating one takes the place of what is in its slot. `tells_state`: whether the vendor tells that it stopped.
    `retried` is for how long the vendor may go on trying a delivery, signed with the secret of its time.
    """

    replaces: ClassVar[bool] = False
    tells_state: ClassVar[bool] = True
    retried: ClassVar[timedelta] = timedelta(days=3)

    def __init__(self, rest: Rest[A], timeout: float) -> None:
        """`timeout`: seconds that a call which creates something may take to answer."""
        self.rest = rest
        self.account = rest.account
        self.settings = rest.settings
        self._timeout = timeout

    @property
    def secret_from(self) -> SecretFrom:
        """As the account's credentials have it."""
        return SecretFrom.FIXED

    @abstractmethod
    def wanted(self) -> list[Wanted]:
        """By the settings alone."""

    @abstractmethod
    def registered(self) -> list[Registered]:
        """All that the credential shows, others' too."""

    @abstractmethod
    def create(self, wanted: Wanted, secret: str) -> Created:
        """`secret` is "" where we do not make it."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """By id; nothing happens when there is none."""

    def close(self) -> None:
        """Connections that wait for more."""
        self.rest.client.session.close()

    def _post(self, path: str, body: Record) -> Any:
        """The answer's JSON and headers, sent once. Its body may hold a secret, so it is in no log."""
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

    def _nonsense(self, what: str) -> VendorUnavailable:
        return VendorUnavailable(f"{self.rest.label}: {what}; is api_url right?")


def texts(entries: object) -> frozenset[str]:
    """The words of a list; none where it is none."""
    return (
        frozenset(str(entry) for entry in entries)
        if isinstance(entries, Iterable) and not isinstance(entries, str)
        else frozenset()
    )


def moment(told: object) -> datetime | None:
    """When a vendor says so. Raises PayloadError."""
    return parse_instant(told) if isinstance(told, str) and told else None


AnySubscriptions = Subscriptions[Any]


def load_subscriptions(vendor: str) -> type[AnySubscriptions] | None:
    """The class for a vendor that is named like its folder; None where subscriptions are made by hand."""
    found: type[AnySubscriptions] | None = getattr(_module(vendor), "SUBSCRIPTIONS", None)
    return found


def manual_steps(account: AnyAccount, *, show_secret: bool) -> list[str]:
    """What a person does where the vendor has no API for it, or the account no credential for that: lines to follow."""
    own: Callable[..., list[str]] | None = getattr(_module(account.vendor), "manual_steps", None)
    return own(account, show_secret=show_secret) if own else _without_credential(account)


def _without_credential(account: AnyAccount) -> list[str]:
    name = account.name
    needed = account.settings.rest_needs()
    urls = [account.webhook_url + (f"?{query}" if query else "") for query in account.webhook_queries()]
    return [
        f"no REST credential is set; with accounts.{name}.{needed}, `ingest webhooks apply {name}` does this. By hand:",
        *(
            f"{number}. have a webhook made at {account.vendor} with URL {url}"
            for number, url in enumerate(urls, 1)
        ),
        f"{len(urls) + 1}. set accounts.{name}.webhook_secrets to the secret that signs it"
        + (" (some are set: keep it the first)" if account.settings.live_secrets() else ""),
    ]


def _module(vendor: str) -> Any:
    return importlib.import_module(f"ingest.vendors.{vendor}.subscriptions")
