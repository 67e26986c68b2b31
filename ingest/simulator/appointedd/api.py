"""Appointedd's REST sides: v1 here, and beside it v2. https://api.appointedd.com/docs/reference/"""

import hashlib
import hmac
import math
from base64 import b64encode
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ingest.simulator.api import Answered, RestDialect, answer
from ingest.simulator.appointedd.api_v2 import JsonApi, errors, missing
from ingest.simulator.appointedd.records import (
    CATEGORIES,
    CATEGORY,
    GROUP,
    GROUPS,
    Numbered,
    Things,
    booking,
    customer,
    customers_of,
    hosts_of,
    known_since,
    number_of,
    resource,
    service,
    services_of,
    status,
)
from ingest.simulator.appointedd.webhooks import BOOKING, CUSTOMER, RESOURCE, SERVICE, object_id, updated_at
from ingest.simulator.dialect import Dialect
from ingest.simulator.world import Meeting

_MOST = 100
_SIGNS = {"ascending": 1, "descending": -1}
_TOKENS = "/v2/oauth/tokens"
_NOTHING, _MILLISECOND = timedelta(0), timedelta(milliseconds=1)

# What lists are sorted and asked by. By nature they are in order of creation, as their numbers are.
Moment = Callable[[Any], datetime]
Rank = tuple[float, int]
_BOOKING_TIMES: Mapping[str, Moment] = {"updated": updated_at, "created": lambda meeting: meeting.created_at}
_CUSTOMER_TIMES: Mapping[str, Moment] = {"updated": known_since, "created": known_since}


class AppointeddRest(RestDialect):
    """An account has both APIs, below `/v1` and `/v2`; the server's address for it is that of v1.

    `api`: whose credentials `settings` tells. `lists_cancelled`: whether v1 lists cancelled bookings unless it is asked for others.
    """

    vendor = "appointedd"
    base_path = ""
    api_path = "/v1"

    def __init__(self, dialect: Dialect, meetings: Mapping[int, Meeting]) -> None:
        super().__init__(dialect, meetings)
        self.api: Literal["v1", "v2"] = "v1"
        self.lists_cancelled = True
        self.v2 = JsonApi(dialect, meetings)
        self._api_key = b64encode(
            hashlib.sha512(f"API key {dialect.url} {dialect.secret}".encode()).digest()
        ).decode()

    def settings(self) -> Mapping[str, Any]:
        return {"api_key": self._api_key} if self.api == "v1" else self.v2.settings()

    def is_open(self, request: Request) -> bool:
        return _path(request.scope) == _TOKENS

    def authentic(self, request: Request) -> bool:
        if _speaks_v2(request.scope):
            return self.v2.authentic(request)
        return hmac.compare_digest(request.headers.get("X-API-KEY", "").encode(), self._api_key.encode())

    def unauthorized(self) -> Response:
        challenge = {"WWW-Authenticate": "Bearer"}
        return _Either(
            answer({"message": "Forbidden"}, 403),
            errors(401, "Unauthorized", "The access token is wrong or expired", challenge),
        )

    def too_many(self, seconds: float) -> Response:
        later = {"Retry-After": str(math.ceil(seconds))}
        return _Either(
            answer({"message": "Too Many Requests"}, 429, later),
            errors(429, "Too Many Requests", "Try again later", later),
        )

    def missing(self) -> Response:
        return _Either(answer({"message": "Not Found"}, 404), missing())

    def routes(self) -> Sequence[Route]:
        """v1's, then v2's."""
        return [
            Route("/v1/bookings", self._bookings),
            Route(
                "/v1/bookings/{id}", lambda request: _single(request, Things(BOOKING, self._now(), booking))
            ),
            Route("/v1/customers", self._customers),
            Route(
                "/v1/customers/{id}",
                lambda request: _single(request, Things(CUSTOMER, customers_of(self._now()), customer)),
            ),
            Route(
                "/v1/services",
                lambda request: _listed(request, Things(SERVICE, services_of(self._now()), service)),
            ),
            Route(
                "/v1/services/categories",
                lambda request: _listed(request, Things(CATEGORY, CATEGORIES, dict)),
            ),
            Route(
                "/v1/resources",
                lambda request: _listed(request, Things(RESOURCE, hosts_of(self._now()), resource)),
            ),
            Route("/v1/resources/groups", lambda request: _listed(request, Things(GROUP, GROUPS, dict))),
            *self.v2.routes(),
        ]

    def _bookings(self, request: Request) -> Response:
        asked, found = request.query_params, self._now()
        if words := _words(asked, "statuses") or (set() if self.lists_cancelled else {"confirmed"}):
            found = {number: meeting for number, meeting in found.items() if status(meeting) in words}
        if wanted := {number_of(given, CUSTOMER) for given in _words(asked, "customers")}:
            found = {
                number: meeting for number, meeting in found.items() if meeting.customer.number in wanted
            }
        return _listed(
            request, Things(BOOKING, _within(asked, found, _BOOKING_TIMES), booking), _BOOKING_TIMES
        )

    def _customers(self, request: Request) -> Response:
        found = _within(request.query_params, customers_of(self._now()), _CUSTOMER_TIMES)
        return _listed(request, Things(CUSTOMER, found, customer), _CUSTOMER_TIMES)

    def _now(self) -> dict[int, Meeting]:
        return dict(self.meetings)


class _Either(Response):
    """Each API refuses in its own form, and the path tells which is spoken."""

    def __init__(self, v1: Response, v2: Response) -> None:
        super().__init__(status_code=v1.status_code)
        self._v1 = v1
        self._v2 = v2

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._v2 if _speaks_v2(scope) else self._v1)(scope, receive, send)


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(str(scope.get("root_path", "")))


def _speaks_v2(scope: Scope) -> bool:
    return _path(scope).startswith("/v2/")


def _single(request: Request, things: Things) -> Response:
    found = things.one(request.path_params["id"])
    if found is None:
        raise _refused("Not Found", 404)
    return answer({"data": found})


def _listed(request: Request, things: Things, times: Mapping[str, Moment] | None = None) -> Response:
    """https://developers.appointedd.com/docs/pagination"""
    rank = _rank(request.query_params, things, times or {})
    ranks = sorted(map(rank, things.numbered))
    since, until = _bounds(request.query_params, things, ranks, rank)
    chosen = [abs(number) for _, number in ranks[since:until]]
    neighbours = {"next": ranks[until : until + 1], "prev": ranks[max(0, since - 1) : since]}
    cursors = {
        name: object_id(abs(found[0][1]), things.prefix) if found else None
        for name, found in neighbours.items()
    }
    return answer({"data": things.told(chosen), "total": len(ranks), **cursors})


def _rank(asked: QueryParams, things: Things, times: Mapping[str, Moment]) -> Callable[[int], Rank]:
    """A number's place in the order that was asked for: smaller comes first."""
    by, direction = asked.get("sort_by", "natural"), asked.get("order_by", "descending")
    if by not in {"natural", *times}:
        raise _refused(f"sort_by cannot be {by}")
    if direction not in _SIGNS:
        raise _refused(f"order_by cannot be {direction}")
    sign, moment = _SIGNS[direction], times.get(by)
    if moment is None:
        return lambda number: (0.0, sign * number)
    return lambda number: (sign * moment(things.numbered[number]).timestamp(), sign * number)


def _bounds(
    asked: QueryParams, things: Things, ranks: Sequence[Rank], rank: Callable[[int], Rank]
) -> tuple[int, int]:
    """`start` is the id of the first thing on a page, as `next` told it; `end` of the last, as `prev` did.

    Where they are is looked up anew: whoever sorts by what changes finds them elsewhere, or, gone from the list, nowhere.
    """
    limit = asked.get("limit", "10")
    if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit) <= _MOST):
        raise _refused(f"limit must be a number from 1 to {_MOST}")
    if "end" in asked:
        until = bisect_right(ranks, _rank_of(asked["end"], things, rank))
        return max(0, until - int(limit)), until
    since = bisect_left(ranks, _rank_of(asked["start"], things, rank)) if "start" in asked else 0
    return since, since + int(limit)


def _rank_of(cursor: str, things: Things, rank: Callable[[int], Rank]) -> Rank:
    number = number_of(cursor, things.prefix)
    try:
        if number is not None:
            return rank(number)
    except KeyError:
        pass
    raise _refused(f"no such page: {cursor}")


def _within(asked: QueryParams, found: Numbered, times: Mapping[str, Moment]) -> Numbered:
    """Bounds included, by the milliseconds that records tell: a bound is moved once, rather than every time cut."""
    for name, moment in times.items():
        after, before = _instant(asked, f"{name}_after"), _instant(asked, f"{name}_before")
        if after:
            first = _milliseconds(after) + (_NOTHING if after == _milliseconds(after) else _MILLISECOND)
            found = {number: thing for number, thing in found.items() if moment(thing) >= first}
        if before:
            end = _milliseconds(before) + _MILLISECOND
            found = {number: thing for number, thing in found.items() if moment(thing) < end}
    return found


def _milliseconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _instant(asked: QueryParams, name: str) -> datetime | None:
    if name not in asked:
        return None
    try:
        given = datetime.fromisoformat(asked[name])
        given + _MILLISECOND
    except (ValueError, OverflowError):
        raise _refused(f"{name} is not an ISO 8601 date") from None
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def _words(asked: QueryParams, name: str) -> set[str]:
    """Repeated, or with commas between."""
    return {word for given in asked.getlist(name) for word in given.split(",") if word}


def _refused(message: str, status_code: int = 400) -> Answered:
    return Answered(answer({"message": message}, status_code))


REST = AppointeddRest
