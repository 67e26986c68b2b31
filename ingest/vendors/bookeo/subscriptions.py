"""The webhooks of Bookeo.

Each API key has one webhook for each domain and type. Creating another silently replaces it, even if somebody
else created it. All webhooks are signed with the application's secret key.
https://www.bookeo.com/apiref/
"""

from typing import ClassVar
from urllib.parse import quote

from ingest.rest import Record
from ingest.vendors.bookeo import BookeoSettings
from ingest.vendors.subscriptions import NewSubscription, Subscription, Subscriptions, SubscriptionSpec

_PAGE = 100


class BookeoSubscriptions(Subscriptions[BookeoSettings]):
    """The webhooks of one account, whose slots are `domain/type`, as events are.

    A blocked webhook stays blocked until it is created again.
    """

    replaces: ClassVar[bool] = True

    def needed(self) -> list[SubscriptionSpec]:
        queries = zip(self.settings.events, self.account.webhook_queries(), strict=True)
        return [
            SubscriptionSpec(event, f"{self.account.webhook_url}?{query}", frozenset({event}))
            for event, query in queries
        ]

    def registered(self) -> list[Subscription]:
        return [
            _subscription(entry)
            for page in self.rest.pages("webhooks", "data", itemsPerPage=_PAGE)
            for entry in page
        ]

    def create(self, spec: SubscriptionSpec, secret: str) -> NewSubscription:  # noqa: ARG002 - it is the application's
        """Create a webhook and return its id, "" where the response's Location does not contain it."""
        domain, _, change = spec.slot.partition("/")
        response = self._post("webhooks", {"domain": domain, "type": change, "url": spec.url})
        return NewSubscription(response.headers.get("Location", "").rstrip("/").rpartition("/")[2])

    def delete(self, name: str) -> None:
        self._delete(f"webhooks/{quote(name, safe='')}")


def _subscription(entry: Record) -> Subscription:
    slot = f"{entry.get('domain')}/{entry.get('type')}"
    blocked = entry.get("blockedTime")
    reason = entry.get("blockedReason") or "no reason told"
    return Subscription(
        id=str(entry["id"]),
        slot=slot,
        url=str(entry.get("url") or ""),
        events=frozenset({slot}),
        stopped=f"Bookeo blocked it at {blocked}: {reason}" if blocked else "",
    )


SUBSCRIPTIONS = BookeoSubscriptions
