"""OnceHub's webhooks. https://help.oncehub.com/developers/api/

The secret is OnceHub's, and told when one is made; whether lists tell it too, its pages disagree. There is no call that
changes one, no two may have one name, and none tells that it was switched off.
"""

import secrets
from typing import Any, ClassVar
from urllib.parse import quote

from ingest.rest import Record
from ingest.vendors.oncehub import SECRET_NAMES, OncehubSettings
from ingest.vendors.subscriptions import (
    Created,
    Registered,
    SecretFrom,
    Subscriptions,
    Wanted,
    fingerprint,
    moment,
    texts,
)

_PAGE = 100
_SLOT = "account"


class OncehubSubscriptions(Subscriptions[OncehubSettings]):
    """Deliveries are tried for three days. https://help.oncehub.com/developers/webhooks/"""

    tells_state: ClassVar[bool] = False

    @property
    def secret_from(self) -> SecretFrom:
        """One for each."""
        return SecretFrom.VENDOR

    def wanted(self) -> list[Wanted]:
        return [Wanted(_SLOT, self.account.webhook_url, frozenset(self.settings.events))]

    def registered(self) -> list[Registered]:
        return [_read(entry) for page in self.rest.pages("webhooks", "data", limit=_PAGE) for entry in page]

    def create(self, wanted: Wanted, secret: str) -> Created:  # noqa: ARG002 - it is theirs
        name = f"ingest {self.settings.name} {secrets.token_hex(4)}"
        made: Any = self._post(
            "webhooks", {"name": name, "url": wanted.url, "events": sorted(wanted.events)}
        ).json()
        if not made.get("id") or not _secret(made):
            raise self._nonsense("a new webhook without an id or a secret")
        return Created(str(made["id"]), _secret(made))

    def delete(self, name: str) -> None:
        self._delete(f"webhooks/{quote(name, safe='')}")


def _read(entry: Record) -> Registered:
    secret = _secret(entry)
    return Registered(
        id=str(entry["id"]),
        slot=_SLOT,
        url=str(entry.get("url") or ""),
        events=texts(entry.get("events")),
        created_at=moment(entry.get("creation_time")),
        mark=fingerprint(secret) if secret else "",
        secret=secret,
    )


def _secret(webhook: Record) -> str:
    """What it signs with, "" where that is not told."""
    return next((str(webhook[name]) for name in SECRET_NAMES if webhook.get(name)), "")


SUBSCRIPTIONS = OncehubSubscriptions
