"""Bookeo's webhook subscriptions: only the newest for each domain and type.

https://www.bookeo.com/apiref/#tag/Webhooks
"""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.account import SimulatedAccount
from ingest.simulator.api import ApiError, json_response, read_json_object
from ingest.simulator.bookeo.records import error, not_found
from ingest.simulator.bookeo.webhooks import format_minute
from ingest.simulator.subscriptions import Subscription, Subscriptions, is_webhook_url

_DOMAINS = ("bookings", "seatblocks", "resourceblocks", "customers", "payments")
_TYPES = ("created", "updated", "deleted")
_FIELDS = {"domain", "type", "url"}
_ID = re.compile(r"WH(\d{8})")


class BookeoSubscriptions(Subscriptions):
    """Starts with the account's own subscriptions; all are signed with the application's key."""

    def __init__(self, account: SimulatedAccount) -> None:
        super().__init__()
        self._secret = account.secret
        for type_ in _TYPES:
            self.add(f"{account.url}?domain=bookings&type={type_}", [f"bookings.{type_}"])

    def add(self, url: str, events: Sequence[str], secret: str | None = None, **about: Any) -> Subscription:
        """Add a subscription to one event, which silently replaces the present one."""
        (event,) = events
        for subscription in self.all():
            if event in subscription.events:
                self.remove(subscription.number)
        return super().add(url, events, secret or self._secret, **about)

    def routes(self) -> Sequence[Route]:
        """Return the endpoints except the list; a subscription is changed by creating it again."""
        return [
            Route("/webhooks", self._create, methods=["POST"]),
            Route("/webhooks/{id}", self._get),
            Route("/webhooks/{id}", self._delete, methods=["DELETE"]),
        ]

    def records(self) -> list[dict[str, Any]]:
        """Return all subscriptions as the list has them."""
        return [_record(subscription) for subscription in self.all()]

    async def _create(self, request: Request) -> Response:
        """Create a subscription and return its id in the Location header only."""
        fields = await _read_fields(request)
        self.created += 1
        subscription = self.add(fields["url"], [f"{fields['domain']}.{fields['type']}"])
        location = f"{request.url.replace(query='')}/{_id(subscription)}"
        return Response(status_code=201, headers={"Location": location})

    async def _get(self, request: Request) -> Response:
        return json_response(_record(self._requested(request)))

    async def _delete(self, request: Request) -> Response:
        self.remove(self._requested(request).number)
        return Response(status_code=204)

    def _requested(self, request: Request) -> Subscription:
        match = _ID.fullmatch(request.path_params["id"])
        subscription = self.find(int(match[1])) if match else None
        if subscription is None:
            raise ApiError(not_found())
        return subscription


def event_of_query(query: str) -> str:
    """Return the event that the query of a webhook's URL names."""
    fields = parse_qs(query)
    return f"{fields['domain'][0]}.{fields['type'][0]}"


async def _read_fields(request: Request) -> dict[str, str]:
    """Read the fields of a new subscription.

    https://www.bookeo.com/api/protocol/
    """
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise ApiError(error(400, "Content-Type must be application/json"))
    fields = await read_json_object(request)
    if fields is None or set(fields) != _FIELDS:
        raise ApiError(error(400, "domain, type and url are needed, and nothing else"))
    if fields["domain"] not in _DOMAINS or fields["type"] not in _TYPES:
        raise ApiError(error(400, "Unknown domain or type"))
    if not is_webhook_url(fields["url"], only_https=True):
        raise ApiError(error(400, "url must begin with https"))
    return fields


def _record(subscription: Subscription) -> dict[str, Any]:
    """Return a subscription; only a blocked one says when and why it was blocked."""
    domain, _, type_ = subscription.events[0].partition(".")
    record = {"id": _id(subscription), "url": subscription.url, "domain": domain, "type": type_}
    if subscription.disabled_at is None:
        return record
    return record | {
        "blockedTime": format_minute(subscription.disabled_at),
        "blockedReason": subscription.reason,
    }


def _id(subscription: Subscription) -> str:
    return f"WH{subscription.number:08d}"
