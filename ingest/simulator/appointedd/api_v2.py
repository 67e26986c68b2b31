"""Appointedd's API v2: JSON:API behind OAuth client credentials. https://developers.appointedd.com/v2.0/reference/introduction-1

Its paths, paging and attributes are not public; these are what JSON:API and OAuth would have them be.
"""

import math
import secrets
import time
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.api import Answered, answer, credential
from ingest.simulator.appointedd.records import (
    AVAILABILITY,
    LOCATION,
    WEBHOOK,
    Numbered,
    Things,
    availability_v2,
    booking_v2,
    customer_v2,
    customers_of,
    hosts_of,
    jsonapi,
    service_v2,
    services_of,
    staff_v2,
)
from ingest.simulator.appointedd.webhooks import BOOKING, CUSTOMER, ORGANISATION, RESOURCE, SERVICE, object_id
from ingest.simulator.dialect import Dialect
from ingest.simulator.world import Meeting

_MOST = 100
_DEFAULT = 10


class JsonApi:
    """`token_seconds` is how long a token made from now on is good, whatever is said of it when it is made."""

    def __init__(self, dialect: Dialect, meetings: Mapping[int, Meeting]) -> None:
        self.token_seconds = 3600.0
        self._dialect = dialect
        self._meetings = meetings
        self._client_id = credential(dialect, "client id")
        self._client_secret = credential(dialect, "client secret")
        self._tokens: dict[str, float] = {}

    def settings(self) -> Mapping[str, Any]:
        """The client's id and secret."""
        return {"client_id": self._client_id, "client_secret": self._client_secret}

    def routes(self) -> Sequence[Route]:
        """Tokens, and every kind of thing in one way."""
        return [
            Route("/v2/oauth/tokens", self._token, methods=["POST"]),
            Route("/v2/{kind}", self._list),
            Route("/v2/{kind}/{id}", self._one),
        ]

    def authentic(self, request: Request) -> bool:
        """Whether the token is one of ours, and its time is not over."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._tokens.get(token, -math.inf) > time.monotonic()

    def revoke(self) -> None:
        """No token made so far is good any more."""
        self._tokens.clear()

    async def _token(self, request: Request) -> Response:
        """https://www.rfc-editor.org/rfc/rfc6749#section-4.4"""
        asked = dict(parse_qsl((await request.body()).decode(errors="replace")))
        if asked.get("grant_type") != "client_credentials":
            return answer({"error": "unsupported_grant_type"}, 400)
        if self._client(request, asked) != (self._client_id, self._client_secret):
            return answer({"error": "invalid_client"}, 401)
        token = secrets.token_hex(32)
        self._tokens[token] = time.monotonic() + self.token_seconds
        return answer(
            {"access_token": token, "token_type": "Bearer", "expires_in": 3600},
            headers={"Cache-Control": "no-store"},
        )

    def _client(self, request: Request, asked: Mapping[str, str]) -> tuple[str, str]:
        """From either place. https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1"""
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return asked.get("client_id", ""), asked.get("client_secret", "")
        try:
            name, _, secret = b64decode(encoded).decode().partition(":")
        except ValueError:
            return "", ""
        return name, secret

    def _list(self, request: Request) -> Response:
        things = self._things(request)
        size, number = _asked(request, "size", _DEFAULT), _asked(request, "number", 1)
        if size > _MOST:
            raise _refused(f"page[size] may be {_MOST} at most")
        pages = max(1, math.ceil(len(things.numbered) / size))
        chosen = sorted(things.numbered, reverse=True)[(number - 1) * size : number * size]
        meta = {"total": len(things.numbered), "pages": pages}
        return document({"data": things.told(chosen), "links": _links(request, number, pages), "meta": meta})

    def _one(self, request: Request) -> Response:
        found = self._things(request).one(request.path_params["id"])
        if found is None:
            raise Answered(missing())
        return document({"data": found})

    def _things(self, request: Request) -> Things:
        find = _KINDS.get(request.path_params["kind"])
        if find is None:
            raise Answered(missing())
        return find(self._dialect, dict(self._meetings))


def _availability(_: Dialect, meetings: Numbered) -> Things:
    last = {
        meeting.host.number: meeting
        for meeting in sorted(meetings.values(), key=lambda meeting: meeting.ends_at)
    }
    return Things(AVAILABILITY, last, availability_v2)


def _only(kind: str, prefix: str, **attributes: str) -> Things:
    return Things(prefix, {1: {"id": object_id(1, prefix), **attributes}}, partial(jsonapi, kind))


_KINDS: Mapping[str, Callable[[Dialect, Numbered], Things]] = {
    "bookings": lambda _, meetings: Things(BOOKING, meetings, booking_v2),
    "customers": lambda _, meetings: Things(CUSTOMER, customers_of(meetings), customer_v2),
    "services": lambda _, meetings: Things(SERVICE, services_of(meetings), service_v2),
    "staff": lambda _, meetings: Things(RESOURCE, hosts_of(meetings), staff_v2),
    "availability": _availability,
    "accounts": lambda _, __: _only("accounts", ORGANISATION, name="Example Clinic"),
    "locations": lambda _, __: _only("locations", LOCATION, name="Main office", timezone="Europe/London"),
    "webhooks": lambda dialect, _: _only("webhooks", WEBHOOK, url=dialect.url),
}


def _asked(request: Request, name: str, default: int) -> int:
    given = request.query_params.get(f"page[{name}]", str(default))
    if not (given.isascii() and given.isdecimal() and int(given) > 0):
        raise _refused(f"page[{name}] must be a positive number")
    return int(given)


def _links(request: Request, number: int, pages: int) -> Mapping[str, str | None]:
    """https://jsonapi.org/format/#fetching-pagination"""

    def page(wanted: int) -> str | None:
        return (
            str(request.url.include_query_params(**{"page[number]": wanted}))
            if 1 <= wanted <= pages
            else None
        )

    return {
        "self": str(request.url),
        "first": page(1),
        "prev": page(number - 1),
        "next": page(number + 1),
        "last": page(pages),
    }


def document(
    body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """https://jsonapi.org/format/#document-top-level"""
    return Response(orjson.dumps(body), status, headers, "application/vnd.api+json")


def errors(status: int, title: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """https://jsonapi.org/format/#errors"""
    return document({"errors": [{"status": str(status), "title": title, "detail": detail}]}, status, headers)


def missing() -> Response:
    """There is no such thing, or kind of things."""
    return errors(404, "Not Found", "There is no such resource")


def _refused(detail: str) -> Answered:
    return Answered(errors(400, "Bad Request", detail))
