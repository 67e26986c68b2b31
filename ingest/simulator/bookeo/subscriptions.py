"""Bookeo's webhook subscriptions: only the newest for each domain and type.

https://www.bookeo.com/apiref/#tag/Webhooks
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response

from ingest.simulator.account import SimulatedAccount
from ingest.simulator.api import (
    ApiError,
    Subscription,
    Subscriptions,
    is_webhook_url,
    json_response,
    read_json_object,
)
from ingest.simulator.bookeo.records import error, format_minute, not_found

_DOMAINS = ("bookings", "seatblocks", "resourceblocks", "customers", "payments")
_TYPES = ("created", "updated", "deleted")
_FIELDS = {"domain", "type", "url"}


class BookeoSubscriptions(Subscriptions):
    """Starts with the account's own subscriptions; all are signed with the application's key."""

    path: ClassVar[str] = "/webhooks"
    replaces: ClassVar[bool] = True

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

    def make_id(self, number: int) -> str:
        return f"WH{number:08d}"

    def missing(self, id_: str) -> ApiError:
        return ApiError(not_found())

    def fields_for(self, url: str) -> Mapping[str, Any]:
        return {"domain": "bookings", "type": "created", "url": url}

    async def create(self, request: Request) -> Response:
        """Create a subscription and return its id in the Location header only.

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
        self.created += 1
        subscription = self.add(fields["url"], [f"{fields['domain']}.{fields['type']}"])
        location = f"{request.url.replace(query='')}/{self.make_id(subscription.number)}"
        return Response(status_code=201, headers={"Location": location})

    async def get(self, request: Request) -> Response:
        return json_response(self.record(self.requested(request)))

    def record(self, subscription: Subscription) -> dict[str, Any]:
        """Return a subscription; only a blocked one says when and why it was blocked."""
        domain, _, type_ = subscription.events[0].partition(".")
        id_ = self.make_id(subscription.number)
        record = {"id": id_, "url": subscription.url, "domain": domain, "type": type_}
        if subscription.disabled_at is None:
            return record
        return record | {
            "blockedTime": format_minute(subscription.disabled_at),
            "blockedReason": subscription.reason,
        }
