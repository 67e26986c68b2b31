"""Appointedd's REST APIs: v1 in this module, v2 beside it.

https://api.appointedd.com/docs/reference/
"""

import hashlib
import hmac
import math
from base64 import b64encode
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ingest.simulator.account import SimulatedAccount
from ingest.simulator.api import ApiError, SimulatedApi, is_between, json_response, read_instant
from ingest.simulator.appointedd.api_v2 import ApiV2, error_document, not_found_document
from ingest.simulator.appointedd.records import (
    BOOKING,
    CATEGORIES,
    CATEGORY,
    CUSTOMER,
    GROUP,
    GROUPS,
    RESOURCE,
    SERVICE,
    ByNumber,
    Collection,
    booking,
    customer,
    customers_of,
    hosts_of,
    object_id,
    parse_id,
    resource,
    service,
    services_of,
    status,
    updated_at,
)
from ingest.simulator.world import Meeting

_MOST = 100
_SIGNS = {"ascending": 1, "descending": -1}
_TOKENS = "/v2/oauth/tokens"

# The times by which lists are sorted and filtered. The natural order is that of creation, which is that of
# the numbers.
Moment = Callable[[Any], datetime]
SortKey = tuple[float, int]
_BOOKING_TIMES: Mapping[str, Moment] = {"updated": updated_at, "created": lambda meeting: meeting.created_at}
_CUSTOMER_TIMES: Mapping[str, Moment] = dict.fromkeys(
    ("updated", "created"), lambda person: person.known_since
)


class AppointeddApi(SimulatedApi):
    """Both APIs of one account, below `/v1` and `/v2`; the account's API URL is that of v1.

    `version` is the API whose credentials `settings` returns. `lists_cancelled`: whether v1 lists cancelled
    bookings when the request names no statuses.
    """

    base_path = ""
    api_path = "/v1"

    def __init__(self, account: SimulatedAccount, meetings: Mapping[int, Meeting]) -> None:
        super().__init__(account, meetings)
        self.version: Literal["v1", "v2"] = "v1"
        self.lists_cancelled = True
        self.v2 = ApiV2(account, meetings)
        digest = hashlib.sha512(f"API key {account.url} {account.secret}".encode()).digest()
        self._api_key = b64encode(digest).decode()

    def settings(self) -> Mapping[str, Any]:
        return {"api_key": self._api_key} if self.version == "v1" else self.v2.settings()

    def auth_headers(self) -> Mapping[str, str]:
        """Return the header for v1; v2 needs a token from its own endpoint."""
        return {"X-API-KEY": self._api_key}

    def is_public(self, request: Request) -> bool:
        return _path(request.scope) == _TOKENS

    def is_authentic(self, request: Request) -> bool:
        if _is_v2(request.scope):
            return self.v2.is_authentic(request)
        return hmac.compare_digest(request.headers.get("X-API-KEY", "").encode(), self._api_key.encode())

    def unauthorized(self) -> Response:
        challenge = {"WWW-Authenticate": "Bearer"}
        return _ResponseByVersion(
            json_response({"message": "Forbidden"}, 403),
            error_document(401, "Unauthorized", "The access token is wrong or expired", challenge),
        )

    def too_many(self, seconds: float) -> Response:
        headers = {"Retry-After": str(math.ceil(seconds))}
        return _ResponseByVersion(
            json_response({"message": "Too Many Requests"}, 429, headers),
            error_document(429, "Too Many Requests", "Try again later", headers),
        )

    def not_found(self) -> Response:
        return _ResponseByVersion(json_response({"message": "Not Found"}, 404), not_found_document())

    def routes(self) -> Sequence[Route]:
        """Return the endpoints of v1 and v2."""
        return [
            Route("/v1/bookings", self.list_bookings),
            Route("/v1/bookings/{id}", self.get_booking),
            Route("/v1/customers", self.list_customers),
            Route("/v1/customers/{id}", self.get_customer),
            Route("/v1/services", self.list_services),
            Route("/v1/services/categories", self.list_categories),
            Route("/v1/resources", self.list_resources),
            Route("/v1/resources/groups", self.list_groups),
            *self.v2.routes(),
        ]

    def list_bookings(self, request: Request) -> Response:
        query, meetings = request.query_params, self.copy_meetings()
        if words := _words(query, "statuses") or (set() if self.lists_cancelled else {"confirmed"}):
            meetings = {number: meeting for number, meeting in meetings.items() if status(meeting) in words}
        if customers := {parse_id(word, CUSTOMER) for word in _words(query, "customers")}:
            meetings = {
                number: meeting
                for number, meeting in meetings.items()
                if meeting.customer.number in customers
            }
        filtered = _filter_by_time(query, meetings, _BOOKING_TIMES)
        return _list(request, Collection(BOOKING, filtered, booking), _BOOKING_TIMES)

    def get_booking(self, request: Request) -> Response:
        return _get(request, Collection(BOOKING, self.copy_meetings(), booking))

    def list_customers(self, request: Request) -> Response:
        customers = customers_of(self.copy_meetings())
        filtered = _filter_by_time(request.query_params, customers, _CUSTOMER_TIMES)
        return _list(request, Collection(CUSTOMER, filtered, customer), _CUSTOMER_TIMES)

    def get_customer(self, request: Request) -> Response:
        return _get(request, Collection(CUSTOMER, customers_of(self.copy_meetings()), customer))

    def list_services(self, request: Request) -> Response:
        return _list(request, Collection(SERVICE, services_of(self.copy_meetings()), service))

    def list_categories(self, request: Request) -> Response:
        return _list(request, Collection(CATEGORY, CATEGORIES, dict))

    def list_resources(self, request: Request) -> Response:
        return _list(request, Collection(RESOURCE, hosts_of(self.copy_meetings()), resource))

    def list_groups(self, request: Request) -> Response:
        return _list(request, Collection(GROUP, GROUPS, dict))


class _ResponseByVersion(Response):
    """An error in the form of the API whose path was requested."""

    def __init__(self, v1: Response, v2: Response) -> None:
        super().__init__(status_code=v1.status_code)
        self._v1 = v1
        self._v2 = v2

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._v2 if _is_v2(scope) else self._v1)(scope, receive, send)


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(str(scope.get("root_path", "")))


def _is_v2(scope: Scope) -> bool:
    return _path(scope).startswith("/v2/")


def _get(request: Request, collection: Collection) -> Response:
    record = collection.find(request.path_params["id"])
    if record is None:
        raise _error("Not Found", 404)
    return json_response({"data": record})


def _list(request: Request, collection: Collection, times: Mapping[str, Moment] | None = None) -> Response:
    """Return a page with the ids of the pages beside it.

    https://developers.appointedd.com/docs/pagination
    """
    query, times = request.query_params, times or {}
    by, direction = query.get("sort_by", "natural"), query.get("order_by", "descending")
    if by not in {"natural", *times}:
        raise _error(f"sort_by cannot be {by}")
    if direction not in _SIGNS:
        raise _error(f"order_by cannot be {direction}")
    sign, moment = _SIGNS[direction], times.get(by)

    def sort_key(number: int) -> SortKey:
        """Return the key of an entry in the requested order, smaller keys first."""
        return sign * moment(collection.entries[number]).timestamp() if moment else 0.0, sign * number

    ordered = sorted(map(sort_key, collection.entries))
    start, end = _bounds(query, collection, ordered, sort_key)
    neighbours = {"next": ordered[end : end + 1], "prev": ordered[max(0, start - 1) : start]}
    cursors = {
        name: object_id(abs(keys[0][1]), collection.prefix) if keys else None
        for name, keys in neighbours.items()
    }
    records = collection.records(abs(number) for _, number in ordered[start:end])
    return json_response({"data": records, "total": len(ordered), **cursors})


def _bounds(
    query: QueryParams,
    collection: Collection,
    ordered: Sequence[SortKey],
    sort_key: Callable[[int], SortKey],
) -> tuple[int, int]:
    """Return the indices of the page's first entry and of the one after its last.

    `start` is the id of the first entry, from an earlier page's `next`; `end` is that of the last, from a
    `prev`. Their positions are looked up anew: in an order by a time that changes they may have moved or left
    the list.
    """
    limit = query.get("limit", "10")
    if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit) <= _MOST):
        raise _error(f"limit must be a number from 1 to {_MOST}")
    if "end" in query:
        end = bisect_right(ordered, _key_of_cursor(query["end"], collection, sort_key))
        return max(0, end - int(limit)), end
    start = 0
    if "start" in query:
        start = bisect_left(ordered, _key_of_cursor(query["start"], collection, sort_key))
    return start, start + int(limit)


def _key_of_cursor(cursor: str, collection: Collection, sort_key: Callable[[int], SortKey]) -> SortKey:
    number = parse_id(cursor, collection.prefix)
    try:
        if number is not None:
            return sort_key(number)
    except KeyError:
        pass
    raise _error(f"no such page: {cursor}")


def _filter_by_time(query: QueryParams, entries: ByNumber, times: Mapping[str, Moment]) -> ByNumber:
    """Return the entries between the bounds, which are inclusive."""

    def invalid_date(name: str) -> ApiError:
        return _error(f"{name} is not an ISO 8601 date")

    for name, moment in times.items():
        after, before = (read_instant(query, f"{name}_{side}", invalid_date) for side in ("after", "before"))
        is_included = is_between(after, before, inclusive=True)
        entries = {number: entry for number, entry in entries.items() if is_included(moment(entry))}
    return entries


def _words(query: QueryParams, name: str) -> set[str]:
    """Return the values of a parameter that may be repeated or contain commas."""
    return {word for value in query.getlist(name) for word in value.split(",") if word}


def _error(message: str, status_code: int = 400) -> ApiError:
    return ApiError(json_response({"message": message}, status_code))
