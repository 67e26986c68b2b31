"""OnceHub's webhooks.

OnceHub makes the secret and returns it when a webhook is created. Its pages disagree whether lists have it
too. A webhook cannot be changed, no two may have the same name, and none says that it was switched off.
https://help.oncehub.com/developers/api/
"""

import secrets
from typing import Any, ClassVar
from urllib.parse import quote

from ingest.rest import Record
from ingest.vendors.oncehub import SECRET_NAMES, OncehubSettings
from ingest.vendors.subscriptions import (
    NewSubscription,
    SecretFrom,
    Subscription,
    Subscriptions,
    SubscriptionSpec,
    fingerprint,
    to_events,
    to_instant,
)

_PAGE = 100
_SLOT = "account"


class OncehubSubscriptions(Subscriptions[OncehubSettings]):
    """The webhooks of one OnceHub account.

    OnceHub retries deliveries for three days.
    https://help.oncehub.com/developers/webhooks/
    """

    tells_state: ClassVar[bool] = False

    @property
    def secret_from(self) -> SecretFrom:
        """Return who makes the secrets. OnceHub makes one for each webhook."""
        return SecretFrom.VENDOR

    def needed(self) -> list[SubscriptionSpec]:
        return [SubscriptionSpec(_SLOT, self.account.webhook_url, frozenset(self.settings.events))]

    def registered(self) -> list[Subscription]:
        return [
            _subscription(entry)
            for page in self.rest.pages("webhooks", "data", limit=_PAGE)
            for entry in page
        ]

    def create(self, spec: SubscriptionSpec, secret: str) -> NewSubscription:  # noqa: ARG002 - OnceHub makes it
        name = f"ingest {self.settings.name} {secrets.token_hex(4)}"
        webhook: Any = self._post(
            "webhooks", {"name": name, "url": spec.url, "events": sorted(spec.events)}
        ).json()
        if not webhook.get("id") or not _secret(webhook):
            raise self._invalid_response("a new webhook without an id or a secret")
        return NewSubscription(str(webhook["id"]), _secret(webhook))

    def delete(self, name: str) -> None:
        self._delete(f"webhooks/{quote(name, safe='')}")


def _subscription(entry: Record) -> Subscription:
    secret = _secret(entry)
    return Subscription(
        id=str(entry["id"]),
        slot=_SLOT,
        url=str(entry.get("url") or ""),
        events=to_events(entry.get("events")),
        created_at=to_instant(entry.get("creation_time")),
        mark=fingerprint(secret) if secret else "",
        secret=secret,
    )


def _secret(webhook: Record) -> str:
    """Return the secret of a webhook; "" where the response has none."""
    return next((str(webhook[name]) for name in SECRET_NAMES if webhook.get(name)), "")


SUBSCRIPTIONS = OncehubSubscriptions
