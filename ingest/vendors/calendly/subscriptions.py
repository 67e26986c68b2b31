"""Calendly's webhook subscriptions.

They cannot be changed, only deleted and created again, and no two may have the same URL. So the query of
each URL has the fingerprint of the subscription's signing key. It shows which key signs which subscription,
although no response contains the key.
https://developer.calendly.com/api-docs/calendly-api/webhooks
"""

import secrets
from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from ingest.errors import VendorRefused
from ingest.rest import Record
from ingest.vendors.calendly import CalendlySettings
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

_PATH = "webhook_subscriptions"
_PAGE = 100
# Families of events that are only sent to subscriptions of one scope.
# https://developer.calendly.com/api-docs/calendly-api/webhooks
_SCOPE_OF_FAMILY = {"routing_form_submission": "organization", "meeting_recap": "user"}
_MARK_PARAMETER = "v"
_CONFLICT = 409
_SUFFIXED_ATTEMPTS = 2


class CalendlySubscriptions(Subscriptions[CalendlySettings]):
    """The subscriptions of one Calendly account.

    Their slots are scopes. A subscription that Calendly disabled stays disabled.
    https://developer.calendly.com/api-docs/overview/webhooks
    """

    retried: ClassVar[timedelta] = timedelta(hours=24)

    @property
    def secret_from(self) -> SecretFrom:
        """Return who makes the secrets.

        An OAuth app has one signing key, which Calendly made.
        https://developer.calendly.com/api-docs/overview/webhooks/webhook-signatures
        """
        return SecretFrom.FIXED if self.settings.refresh_token else SecretFrom.US

    def needed(self) -> list[SubscriptionSpec]:
        """Return a subscription of the account's scope, and one of the other scope where events need it."""
        by_scope: dict[str, set[str]] = {}
        for event in self.settings.events:
            by_scope.setdefault(
                _SCOPE_OF_FAMILY.get(event.partition(".")[0], self.settings.scope), set()
            ).add(event)
        scopes = sorted(by_scope.items(), key=lambda item: item[0] != self.settings.scope)
        return [
            SubscriptionSpec(scope, self.account.webhook_url, frozenset(events)) for scope, events in scopes
        ]

    def registered(self) -> list[Subscription]:
        """Return the subscriptions of both scopes.

        Calendly does not show the organization's subscriptions to a user who is no admin. This is no error
        where the account needs none of that scope.
        """
        me = self._me()
        user_subscriptions = self._list("user", me)
        try:
            return user_subscriptions + self._list("organization", me)
        except VendorRefused:
            if all(spec.slot == "user" for spec in self.needed()):
                return user_subscriptions
            raise

    def create(self, spec: SubscriptionSpec, secret: str) -> NewSubscription:
        me = self._me()
        body: dict[str, Any] = {
            "events": sorted(spec.events),
            "organization": me["current_organization"],
            "scope": spec.slot,
        }
        body |= {"user": me["uri"]} if spec.slot == "user" else {}
        body |= {"signing_key": secret} if secret else {}
        mark = fingerprint(secret) if secret else secrets.token_hex(6)
        subscription = self._post_to_free_url(f"{spec.url}?{_MARK_PARAMETER}={mark}", body)
        if not subscription.get("uri"):
            raise self._invalid_response("a new subscription without a uri")
        return NewSubscription(str(subscription["uri"]))

    def _post_to_free_url(self, url: str, body: dict[str, Any]) -> Record:
        """Create a subscription with a URL that no other subscription has.

        A subscription that our lists do not show, such as a group's, may already have the URL.
        """
        for suffix in ("", *(f"&n={secrets.token_hex(6)}" for _ in range(_SUFFIXED_ATTEMPTS))):
            try:
                response = self._post(_PATH, {**body, "url": url + suffix})
            except VendorRefused as error:
                if error.status_code != _CONFLICT:
                    raise
                conflict = error
            else:
                return response.json().get("resource") or {}
        raise conflict

    def delete(self, name: str) -> None:
        self._delete(f"{_PATH}/{name.rpartition('/')[2]}")

    def _me(self) -> Record:
        return self.rest.extract(self.rest.client.get("users/me"), dict, "resource")

    def _list(self, scope: str, me: Record) -> list[Subscription]:
        params = {"organization": me["current_organization"], "scope": scope} | (
            {"user": me["uri"]} if scope == "user" else {}
        )
        return [
            _subscription(entry)
            for page in self.rest.pages(_PATH, "collection", count=_PAGE, **params)
            for entry in page
        ]


def _subscription(entry: Record) -> Subscription:
    url = str(entry.get("callback_url") or "")
    active = entry.get("state") == "active"
    return Subscription(
        id=str(entry["uri"]),
        slot=str(entry.get("scope")),
        url=url,
        events=to_events(entry.get("events")),
        created_at=to_instant(entry.get("created_at")),
        stopped="" if active else "Calendly disabled it permanently; it must be created again",
        mark=parse_qs(urlsplit(url).query).get(_MARK_PARAMETER, [""])[0],
    )


SUBSCRIPTIONS = CalendlySubscriptions
