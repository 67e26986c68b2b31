"""Bookeo's webhooks: one for each domain and type, the newest. https://www.bookeo.com/apiref/#tag/Webhooks"""

import re
from collections.abc import Sequence
from json import JSONDecodeError
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.api import Answered, answer
from ingest.simulator.bookeo.answers import error, missing
from ingest.simulator.bookeo.webhooks import minute
from ingest.simulator.dialect import Dialect
from ingest.simulator.subscriptions import Subscription, Subscriptions, is_url

_DOMAINS = ("bookings", "seatblocks", "resourceblocks", "customers", "payments")
_TYPES = ("created", "updated", "deleted")
_FIELDS = {"domain", "type", "url"}
_ID = re.compile(r"WH(\d{8})")


class BookeoSubscriptions(Subscriptions):
    """What the account's own webhooks are, they are from the beginning. All are signed with the application's key."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__()
        self._secret = dialect.secret
        for kind in _TYPES:
            self.add(f"{dialect.url}?domain=bookings&type={kind}", [f"bookings.{kind}"])

    def add(self, url: str, events: Sequence[str], secret: str | None = None, **about: Any) -> Subscription:
        """Of one event, in the place of what there was for it, and nobody is told."""
        (event,) = events
        for kept in self.all():
            if event in kept.events:
                self.remove(kept.number)
        return super().add(url, events, secret or self._secret, **about)

    def routes(self) -> Sequence[Route]:
        """But for the list; to change one is to create it again."""
        return [
            Route("/webhooks", self._create, methods=["POST"]),
            Route("/webhooks/{id}", self._one),
            Route("/webhooks/{id}", self._delete, methods=["DELETE"]),
        ]

    def told(self) -> list[dict[str, Any]]:
        """As lists have them."""
        return [_told(kept) for kept in self.all()]

    async def _create(self, request: Request) -> Response:
        """The new one's id is in Location alone."""
        given = await _body(request)
        self.created += 1
        added = self.add(given["url"], [f"{given['domain']}.{given['type']}"])
        return Response(
            status_code=201, headers={"Location": f"{request.url.replace(query='')}/{_id(added)}"}
        )

    async def _one(self, request: Request) -> Response:
        return answer(_told(self._found(request)))

    async def _delete(self, request: Request) -> Response:
        self.remove(self._found(request).number)
        return Response(status_code=204)

    def _found(self, request: Request) -> Subscription:
        match = _ID.fullmatch(request.path_params["id"])
        found = self.find(int(match[1])) if match else None
        if found is None:
            raise Answered(missing())
        return found


def event_of_query(query: str) -> str:
    """What a webhook's own URL says of it."""
    fields = parse_qs(query)
    return f"{fields['domain'][0]}.{fields['type'][0]}"


async def _body(request: Request) -> dict[str, str]:
    """https://www.bookeo.com/api/protocol/"""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise Answered(error(400, "Content-Type must be application/json"))
    try:
        given = await request.json()
    except (JSONDecodeError, UnicodeDecodeError):
        given = None
    if not isinstance(given, dict) or set(given) != _FIELDS:
        raise Answered(error(400, "domain, type and url are needed, and nothing else"))
    if given["domain"] not in _DOMAINS or given["type"] not in _TYPES:
        raise Answered(error(400, "Unknown domain or type"))
    if not is_url(given["url"], only_https=True):
        raise Answered(error(400, "url must begin with https"))
    return given


def _told(kept: Subscription) -> dict[str, Any]:
    """Only a blocked one says since when and why."""
    domain, _, kind = kept.events[0].partition(".")
    webhook = {"id": _id(kept), "url": kept.url, "domain": domain, "type": kind}
    return webhook | (
        {"blockedTime": minute(kept.disabled_at), "blockedReason": kept.reason} if kept.disabled_at else {}
    )


def _id(kept: Subscription) -> str:
    return f"WH{kept.number:08d}"
