"""The webhook subscriptions of an account at a simulated vendor.

The methods of `Subscriptions` act behind the API, as people do in the vendor's own screens: none of the API's
rules apply.
"""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from ingest.simulator.account import SimulatedAccount, Webhook

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@dataclass(frozen=True, slots=True)
class Recipient:
    """The URL a webhook goes to, including its query, and the secret that signs it there."""

    url: str
    secret: str

    def address(self, account: SimulatedAccount, webhook: Webhook) -> tuple[SimulatedAccount, Webhook]:
        """Return the account and the webhook as this recipient gets it, for `Sender.send`."""
        url, _, query = self.url.partition("?")
        return type(account)(url, self.secret), replace(webhook, query=query)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A webhook subscription. `about` holds what only its vendor stores; a disabled one stays disabled."""

    number: int
    url: str
    events: Sequence[str]
    secret: str
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    about: Mapping[str, Any] = field(default_factory=dict)
    disabled_at: datetime | None = None
    reason: str = ""

    @property
    def recipient(self) -> Recipient:
        """The recipient of its webhooks."""
        return Recipient(self.url, self.secret)


class Subscriptions:
    """The subscriptions of one account, in order of creation.

    `created` counts those made through the API, including those removed since.
    """

    def __init__(self) -> None:
        self.created = 0
        self._by_number: dict[int, Subscription] = {}
        self._last_number = 0

    def all(self) -> list[Subscription]:
        """Return a copy of the list, because tests read it from another thread."""
        return list(self._by_number.values())

    def find(self, number: int | None) -> Subscription | None:
        """Return the subscription with this number, or None when there is none."""
        return None if number is None else self._by_number.get(number)

    def existed(self, number: int) -> bool:
        """Say whether there is or was a subscription with this number."""
        return 1 <= number <= self._last_number

    def add(self, url: str, events: Sequence[str], secret: str | None = None, **about: Any) -> Subscription:
        """Add a subscription; without a secret, with one that the vendor makes up."""
        self._last_number += 1
        subscription = Subscription(
            self._last_number, url, tuple(events), secret or secrets.token_hex(16), about=about
        )
        self._by_number[subscription.number] = subscription
        return subscription

    def remove(self, number: int) -> None:
        """Remove a subscription. Raises KeyError when there is none with this number."""
        del self._by_number[number]

    def clear(self) -> None:
        """Remove all subscriptions; their numbers are not used again."""
        self._by_number.clear()

    def disable(self, url: str, reason: str = "Too many errors in a row") -> None:
        """Disable all subscriptions with this URL, as the vendor does when the URL failed for too long.

        Raises LookupError when there is none that is still active.
        """
        active = [
            subscription
            for subscription in self.all()
            if subscription.url == url and subscription.disabled_at is None
        ]
        if not active:
            raise LookupError(f"nothing that is not disabled goes to {url}")
        for subscription in active:
            self._by_number[subscription.number] = replace(
                subscription, disabled_at=datetime.now(UTC), reason=reason
            )

    def active(self, event: str) -> list[Subscription]:
        """Return the subscriptions to the event, in the vendor's word for it, that are not disabled."""
        return [
            subscription
            for subscription in self.all()
            if event in subscription.events and subscription.disabled_at is None
        ]


def is_webhook_url(value: object, *, only_https: bool = False) -> bool:
    """Say whether a webhook can go to this URL; loopback needs no TLS, because tests listen there."""
    if not isinstance(value, str):
        return False
    try:
        url = urlsplit(value)
        host = url.hostname
    except ValueError:
        return False
    secure = url.scheme == "https" or (url.scheme == "http" and (host in _LOOPBACK or not only_https))
    return bool(host) and secure


def is_list_of(value: object, words: Collection[str]) -> bool:
    """Say whether the value is a non-empty list of these words."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(word, str) and word in words for word in value)
    )
