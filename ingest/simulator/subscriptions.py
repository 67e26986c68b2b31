"""Who is to get an account's webhooks: the subscriptions a vendor keeps, and what tests may do to them behind the API."""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from ingest.simulator.dialect import Dialect, Webhook

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@dataclass(frozen=True, slots=True)
class Recipient:
    """Where a webhook goes, the URL's query included, and the secret that signs it there."""

    url: str
    secret: str

    def addressed(self, dialect: Dialect, webhook: Webhook) -> tuple[Dialect, Webhook]:
        """The webhook as this recipient gets it: what `Sender.send` takes."""
        url, _, query = self.url.partition("?")
        return type(dialect)(url, self.secret), replace(webhook, query=query)


@dataclass(frozen=True, slots=True)
class Subscription:
    """`about` is what only its vendor keeps of one. A disabled one gets nothing, and never comes back."""

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
        """As long as it is not disabled."""
        return Recipient(self.url, self.secret)


class Subscriptions:
    """One account's, in the order of creation. `created` counts those made by way of the API, also what is gone since."""

    def __init__(self) -> None:
        self.created = 0
        self._kept: dict[int, Subscription] = {}
        self._last = 0

    def all(self) -> list[Subscription]:
        """Copied at once: tests look on from another thread."""
        return list(self._kept.values())

    def find(self, number: int | None) -> Subscription | None:
        """None when there is none of that number, or no longer."""
        return None if number is None else self._kept.get(number)

    def known(self, number: int) -> bool:
        """Whether there is or was one of that number."""
        return 1 <= number <= self._last

    def add(self, url: str, events: Sequence[str], secret: str | None = None, **about: Any) -> Subscription:
        """As if made by somebody else, in the vendor's own screens: no rule of the API is asked. Without a secret it is the vendor's."""
        self._last += 1
        added = Subscription(self._last, url, tuple(events), secret or secrets.token_hex(16), about=about)
        self._kept[added.number] = added
        return added

    def remove(self, number: int) -> None:
        """It must be there."""
        del self._kept[number]

    def clear(self) -> None:
        """As if nobody had ever subscribed; numbers are not given again."""
        self._kept.clear()

    def disable(self, url: str, reason: str = "Too many errors in a row") -> None:
        """As the vendor does when the URL failed for too long: all that go there. Raises LookupError when nothing does."""
        found = [kept for kept in self.all() if kept.url == url and kept.disabled_at is None]
        if not found:
            raise LookupError(f"nothing that is not disabled goes to {url}")
        for kept in found:
            self._kept[kept.number] = replace(kept, disabled_at=datetime.now(UTC), reason=reason)

    def hearing(self, event: str) -> list[Subscription]:
        """Those that asked for the event, in the vendor's word for it, and are not disabled."""
        return [kept for kept in self.all() if event in kept.events and kept.disabled_at is None]


def is_url(given: object, *, only_https: bool = False) -> bool:
    """Whether a webhook can go there. Loopback needs no TLS: tests listen there."""
    if not isinstance(given, str):
        return False
    try:
        url = urlsplit(given)
        host = url.hostname
    except ValueError:
        return False
    secure = url.scheme == "https" or (url.scheme == "http" and (host in _LOOPBACK or not only_https))
    return bool(host) and secure


def are_words(given: object, words: Collection[str]) -> bool:
    """Whether it is a list of at least one, all of them known."""
    return (
        isinstance(given, list)
        and bool(given)
        and all(isinstance(word, str) and word in words for word in given)
    )
