"""Bookeo's webhooks: one for each domain and type, of each API key. https://www.bookeo.com/apiref/

Making one silently takes the place of another, somebody else's too. All are signed with the application's secret key.
"""

from typing import ClassVar
from urllib.parse import quote

from ingest.rest import Record
from ingest.vendors.bookeo import BookeoSettings
from ingest.vendors.subscriptions import Created, Registered, Subscriptions, Wanted

_PAGE = 100


class BookeoSubscriptions(Subscriptions[BookeoSettings]):
    """Slots are `domain/type`, as events are. A blocked one stays so until it is made anew."""

    replaces: ClassVar[bool] = True

    def wanted(self) -> list[Wanted]:
        queries = zip(self.settings.events, self.account.webhook_queries(), strict=True)
        return [
            Wanted(event, f"{self.account.webhook_url}?{query}", frozenset({event}))
            for event, query in queries
        ]

    def registered(self) -> list[Registered]:
        return [
            _read(entry) for page in self.rest.pages("webhooks", "data", itemsPerPage=_PAGE) for entry in page
        ]

    def create(self, wanted: Wanted, secret: str) -> Created:  # noqa: ARG002 - it is the application's
        """The answer names the new one in its Location, if at all."""
        domain, _, happened = wanted.slot.partition("/")
        answer = self._post("webhooks", {"domain": domain, "type": happened, "url": wanted.url})
        return Created(answer.headers.get("Location", "").rstrip("/").rpartition("/")[2])

    def delete(self, name: str) -> None:
        self._delete(f"webhooks/{quote(name, safe='')}")


def _read(entry: Record) -> Registered:
    slot = f"{entry.get('domain')}/{entry.get('type')}"
    blocked = entry.get("blockedTime")
    reason = entry.get("blockedReason") or "no reason told"
    return Registered(
        id=str(entry["id"]),
        slot=slot,
        url=str(entry.get("url") or ""),
        events=frozenset({slot}),
        stopped=f"Bookeo blocked it at {blocked}: {reason}" if blocked else "",
    )


SUBSCRIPTIONS = BookeoSubscriptions
