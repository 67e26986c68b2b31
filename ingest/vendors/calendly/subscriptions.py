"""Calendly's webhook subscriptions. https://developer.calendly.com/api-docs/calendly-api/webhooks

They are never changed, only deleted and made anew, and no two may go to one URL. So each gets a URL of its own, by the
fingerprint of its signing key in the query: whoever lists them sees which key signs which, although no answer has the key.
"""

import secrets
from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from ingest.errors import VendorRefused
from ingest.rest import Record
from ingest.vendors.calendly import CalendlySettings
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

_PATH = "webhook_subscriptions"
_PAGE = 100
# Families of events that one scope alone is told. https://developer.calendly.com/api-docs/calendly-api/webhooks
_ONLY_SCOPES = {"routing_form_submission": "organization", "meeting_recap": "user"}
_MARK = "v"
_CONFLICT = 409
_VARIATIONS = 2


class CalendlySubscriptions(Subscriptions[CalendlySettings]):
    """Slots are scopes. A disabled one never comes back. https://developer.calendly.com/api-docs/overview/webhooks"""

    retried: ClassVar[timedelta] = timedelta(hours=24)

    @property
    def secret_from(self) -> SecretFrom:
        """An OAuth app has one key, which Calendly made. https://developer.calendly.com/api-docs/overview/webhooks/webhook-signatures"""
        return SecretFrom.FIXED if self.settings.refresh_token else SecretFrom.US

    def wanted(self) -> list[Wanted]:
        """One for the account's scope, and one beside it for events that only the other scope is told."""
        by_scope: dict[str, set[str]] = {}
        for event in self.settings.events:
            by_scope.setdefault(_ONLY_SCOPES.get(event.partition(".")[0], self.settings.scope), set()).add(
                event
            )
        own_first = sorted(by_scope.items(), key=lambda item: item[0] != self.settings.scope)
        return [Wanted(scope, self.account.webhook_url, frozenset(events)) for scope, events in own_first]

    def registered(self) -> list[Registered]:
        """In both scopes. A user who is no admin may not see the organization's, and then has none there."""
        me = self._me()
        found = self._scope("user", me)
        try:
            return found + self._scope("organization", me)
        except VendorRefused:
            if all(wanted.slot == "user" for wanted in self.wanted()):
                return found
            raise

    def create(self, wanted: Wanted, secret: str) -> Created:
        me = self._me()
        body: dict[str, Any] = {
            "events": sorted(wanted.events),
            "organization": me["current_organization"],
            "scope": wanted.slot,
        }
        body |= {"user": me["uri"]} if wanted.slot == "user" else {}
        body |= {"signing_key": secret} if secret else {}
        mark = fingerprint(secret) if secret else secrets.token_hex(6)
        made = self._somewhere(f"{wanted.url}?{_MARK}={mark}", body)
        if not made.get("uri"):
            raise self._nonsense("a new subscription without a uri")
        return Created(str(made["uri"]))

    def _somewhere(self, url: str, body: dict[str, Any]) -> Record:
        """At a URL that is not taken: what no list shows us, as a group's, may have it."""
        for variation in ("", *(f"&n={secrets.token_hex(6)}" for _ in range(_VARIATIONS))):
            try:
                made: Record = (
                    self._post(_PATH, {**body, "url": url + variation}).json().get("resource") or {}
                )
            except VendorRefused as error:
                if error.status_code != _CONFLICT:
                    raise
                refused = error
            else:
                return made
        raise refused

    def delete(self, name: str) -> None:
        self._delete(f"{_PATH}/{name.rpartition('/')[2]}")

    def _me(self) -> Record:
        found: Record = self.rest.part(self.rest.client.get("users/me"), dict, "resource")
        return found

    def _scope(self, scope: str, me: Record) -> list[Registered]:
        whose = {"organization": me["current_organization"], "scope": scope} | (
            {"user": me["uri"]} if scope == "user" else {}
        )
        return [
            _read(entry)
            for page in self.rest.pages(_PATH, "collection", count=_PAGE, **whose)
            for entry in page
        ]


def _read(entry: Record) -> Registered:
    url = str(entry.get("callback_url") or "")
    active = entry.get("state") == "active"
    return Registered(
        id=str(entry["uri"]),
        slot=str(entry.get("scope")),
        url=url,
        events=texts(entry.get("events")),
        created_at=moment(entry.get("created_at")),
        stopped="" if active else "Calendly disabled it permanently; it must be created again",
        mark=parse_qs(urlsplit(url).query).get(_MARK, [""])[0],
    )


SUBSCRIPTIONS = CalendlySubscriptions
