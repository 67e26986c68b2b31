"""Appointedd's API v2: JSON:API behind OAuth client credentials.

https://developers.appointedd.com/v2.0/reference/introduction-1

Its paths, pagination and attributes are not public; these follow JSON:API and OAuth.
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

from ingest.simulator.account import SimulatedAccount
from ingest.simulator.api import ApiError, derive_credential, json_response
from ingest.simulator.appointedd.records import (
    AVAILABILITY,
    BOOKING,
    CUSTOMER,
    LOCATION,
    ORGANISATION,
    RESOURCE,
    SERVICE,
    WEBHOOK,
    ByNumber,
    Collection,
    availability_v2,
    booking_v2,
    customer_v2,
    customers_of,
    hosts_of,
    last_meetings_of,
    object_id,
    resource_object,
    service_v2,
    services_of,
    staff_v2,
)
from ingest.simulator.world import Meeting

_MOST = 100
_DEFAULT = 10


class ApiV2:
    """The API v2 of one account.

    `token_seconds` is the true lifetime of the tokens issued from now on, whatever `expires_in` says.
    """

    def __init__(self, account: SimulatedAccount, meetings: Mapping[int, Meeting]) -> None:
        self.token_seconds = 3600.0
        self._account = account
        self._meetings = meetings
        self._client_id = derive_credential(account, "client id")
        self._client_secret = derive_credential(account, "client secret")
        self._tokens: dict[str, float] = {}

    def settings(self) -> Mapping[str, Any]:
        """Return the client's id and secret."""
        return {"client_id": self._client_id, "client_secret": self._client_secret}

    def routes(self) -> Sequence[Route]:
        """Return the endpoint for tokens, and those for every kind of resource."""
        return [
            Route("/v2/oauth/tokens", self.create_token, methods=["POST"]),
            Route("/v2/{kind}", self.list_resources),
            Route("/v2/{kind}/{id}", self.get_resource),
        ]

    def is_authentic(self, request: Request) -> bool:
        """Say whether the token was issued here and has not expired."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._tokens.get(token, -math.inf) > time.monotonic()

    def revoke(self) -> None:
        """Revoke all tokens issued so far."""
        self._tokens.clear()

    async def create_token(self, request: Request) -> Response:
        """Issue a token for client credentials, which are in the header or in the form.

        https://www.rfc-editor.org/rfc/rfc6749#section-4.4
        https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1
        """
        form = dict(parse_qsl((await request.body()).decode(errors="replace")))
        if form.get("grant_type") != "client_credentials":
            return json_response({"error": "unsupported_grant_type"}, 400)
        client_id, client_secret = form.get("client_id", ""), form.get("client_secret", "")
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                client_id, _, client_secret = b64decode(encoded).decode().partition(":")
            except ValueError:
                client_id = client_secret = ""
        if (client_id, client_secret) != (self._client_id, self._client_secret):
            return json_response({"error": "invalid_client"}, 401)
        token = secrets.token_hex(32)
        self._tokens[token] = time.monotonic() + self.token_seconds
        return json_response(
            {"access_token": token, "token_type": "Bearer", "expires_in": 3600},
            headers={"Cache-Control": "no-store"},
        )

    def list_resources(self, request: Request) -> Response:
        """Return a page with links to other pages.

        https://jsonapi.org/format/#fetching-pagination
        """
        collection = self._collection(request)
        size, number = _page_parameter(request, "size", _DEFAULT), _page_parameter(request, "number", 1)
        if size > _MOST:
            raise _error(f"page[size] may be {_MOST} at most")
        pages = max(1, math.ceil(len(collection.entries) / size))
        chosen = sorted(collection.entries, reverse=True)[(number - 1) * size : number * size]
        links: dict[str, str | None] = {"self": str(request.url)}
        for name, target in {"first": 1, "prev": number - 1, "next": number + 1, "last": pages}.items():
            url = request.url.include_query_params(**{"page[number]": target})
            links[name] = str(url) if 1 <= target <= pages else None
        meta = {"total": len(collection.entries), "pages": pages}
        return document({"data": collection.records(chosen), "links": links, "meta": meta})

    def get_resource(self, request: Request) -> Response:
        record = self._collection(request).find(request.path_params["id"])
        if record is None:
            raise ApiError(not_found_document())
        return document({"data": record})

    def _collection(self, request: Request) -> Collection:
        collect = _COLLECTIONS.get(request.path_params["kind"])
        if collect is None:
            raise ApiError(not_found_document())
        return collect(self._account, dict(self._meetings))


def _single(kind: str, prefix: str, **attributes: str) -> Collection:
    return Collection(prefix, {1: {"id": object_id(1, prefix), **attributes}}, partial(resource_object, kind))


_COLLECTIONS: Mapping[str, Callable[[SimulatedAccount, ByNumber], Collection]] = {
    "bookings": lambda _, meetings: Collection(BOOKING, meetings, booking_v2),
    "customers": lambda _, meetings: Collection(CUSTOMER, customers_of(meetings), customer_v2),
    "services": lambda _, meetings: Collection(SERVICE, services_of(meetings), service_v2),
    "staff": lambda _, meetings: Collection(RESOURCE, hosts_of(meetings), staff_v2),
    "availability": lambda _, meetings: Collection(AVAILABILITY, last_meetings_of(meetings), availability_v2),
    "accounts": lambda _, __: _single("accounts", ORGANISATION, name="Example Clinic"),
    "locations": lambda _, __: _single("locations", LOCATION, name="Main office", timezone="Europe/London"),
    "webhooks": lambda account, _: _single("webhooks", WEBHOOK, url=account.url),
}


def _page_parameter(request: Request, name: str, default: int) -> int:
    value = request.query_params.get(f"page[{name}]", str(default))
    if not (value.isascii() and value.isdecimal() and int(value) > 0):
        raise _error(f"page[{name}] must be a positive number")
    return int(value)


def document(
    body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON:API document.

    https://jsonapi.org/format/#document-top-level
    """
    return Response(orjson.dumps(body), status, headers, "application/vnd.api+json")


def error_document(
    status: int, title: str, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON:API document with one error.

    https://jsonapi.org/format/#errors
    """
    return document({"errors": [{"status": str(status), "title": title, "detail": detail}]}, status, headers)


def not_found_document() -> Response:
    """Return the error for a resource, or a kind of resources, that does not exist."""
    return error_document(404, "Not Found", "There is no such resource")


def _error(detail: str) -> ApiError:
    return ApiError(error_document(400, "Bad Request", detail))
