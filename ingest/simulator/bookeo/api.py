"""Bookeo's REST API.

https://www.bookeo.com/apiref/

Times are cut to the minute, including those that `lastUpdatedStartTime` and `lastUpdatedEndTime` are compared
with. Canceled bookings, customers and participants are left out unless they are requested.
"""

import math
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import parse_qs

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.account import SimulatedAccount, Webhook
from ingest.simulator.api import ApiError, Recipient, SimulatedApi, derive_credential, json_response
from ingest.simulator.bookeo import records
from ingest.simulator.bookeo.records import (
    booking_number,
    customer_id,
    cut_to_minute,
    error,
    not_found,
    product_id,
)
from ingest.simulator.bookeo.subscriptions import BookeoSubscriptions
from ingest.simulator.world import ChangeKind, Meeting

_DEFAULT_PER_PAGE = 50
_STORED_SEARCHES = 100
_LONGEST_WINDOW = timedelta(days=31)

# The keys that were found, and a function that returns the current records of some of them.
Result = tuple[Sequence[int], Callable[[Sequence[int]], Sequence[Any]]]


@dataclass(frozen=True, slots=True)
class _Search:
    path: str
    token: str
    result: Result
    per_page: int

    @property
    def pages(self) -> int:
        return -(-len(self.result[0]) // self.per_page)

    def page(self, number: int) -> dict[str, Any]:
        """Return a page; where it is the only one, it has no token."""
        keys, find_records = self.result
        start = (number - 1) * self.per_page
        info = {"totalItems": len(keys), "totalPages": self.pages, "currentPage": number}
        return {
            "data": find_records(keys[start : start + self.per_page]),
            "info": info | ({"pageNavigationToken": self.token} if self.pages > 1 else {}),
        }


class _Searches:
    """The latest searches of more than one page, by the token that their pages share; older ones expire."""

    def __init__(self) -> None:
        self._by_token: dict[str, _Search] = {}

    def first_page(self, path: str, result: Result, per_page: int) -> dict[str, Any]:
        """Store a new search and return its first page."""
        search = _Search(path, secrets.token_hex(12), result, per_page)
        if search.pages > 1:
            self._by_token[search.token] = search
        if len(self._by_token) > _STORED_SEARCHES:
            del self._by_token[next(iter(self._by_token))]
        return search.page(1)

    def page(self, path: str, token: str, number: int) -> dict[str, Any] | None:
        """Return a page of a stored search without deleted entries, or None for an unknown token or page."""
        search = self._by_token.get(token)
        return search.page(number) if search and search.path == path and number <= search.pages else None


@dataclass(frozen=True, slots=True)
class _Window:
    """A span of time that includes both of its ends."""

    since: datetime
    until: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.since <= moment <= self.until


_ALWAYS = _Window(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


class BookeoApi(SimulatedApi):
    """The API of one account, which needs the account's key and the application's, which also signs webhooks.

    `retry_after_in` is where a response over the limit says how long to wait.
    """

    base_path = "/v2"

    def __init__(self, account: SimulatedAccount, meetings: Mapping[int, Meeting]) -> None:
        super().__init__(account, meetings)
        self.api_key = derive_credential(account, "api_key")
        self.subscriptions: BookeoSubscriptions = BookeoSubscriptions(account)
        self.retry_after_in: Literal["header", "body"] = "header"
        self._searches = _Searches()

    def settings(self) -> Mapping[str, Any]:
        return {"secret_key": self.account.secret, "api_key": self.api_key}

    def auth_headers(self) -> Mapping[str, str]:
        return {"X-Bookeo-secretKey": self.account.secret, "X-Bookeo-apiKey": self.api_key}

    def routes(self) -> Sequence[Route]:
        return [
            Route("/bookings", self.list_bookings),
            Route("/bookings/{number}", self.get_booking),
            Route("/customers", self.list_customers),
            Route("/customers/{id}", self.get_customer),
            Route("/customers/{id}/linkedpeople", self.list_linked_people),
            Route("/payments", self.list_payments),
            Route("/holds/{id}", self.get_hold),
            Route("/settings/products", self.list_products),
            Route("/settings/resources", self.list_resources),
            Route("/settings/languages", self.list_languages),
            Route("/settings/apikeyinfo", self.get_api_key_info),
            Route("/webhooks", self.list_webhooks),
            *self.subscriptions.routes(),
        ]

    def is_authentic(self, request: Request) -> bool:
        """Look for the keys in the headers and in the query.

        https://www.bookeo.com/api/protocol/
        """
        keys = [
            request.headers.get(f"X-Bookeo-{name}", request.query_params.get(name))
            for name in ("secretKey", "apiKey")
        ]
        return keys == [self.account.secret, self.api_key]

    def unauthorized(self) -> Response:
        return error(403, "Invalid secret key or API key")

    def too_many(self, seconds: float) -> Response:
        pause = math.ceil(seconds)
        if self.retry_after_in == "body":
            return error(429, "Too many requests", retryAfter=pause)
        return error(429, "Too many requests", {"Retry-After": str(pause)})

    def not_found(self) -> Response:
        return not_found()

    def event_of(self, webhook: Webhook) -> str:
        """Return a single word such as `bookings.created`, where Bookeo has a domain and a type."""
        fields = parse_qs(webhook.query)
        return f"{fields['domain'][0]}.{fields['type'][0]}"

    def recipients(self, event: str, meeting: Meeting | None = None) -> Sequence[Recipient]:
        return [subscription.recipient for subscription in self.subscriptions.active(event)]

    async def list_bookings(self, request: Request) -> Response:
        def find(query: QueryParams) -> Result:
            starts = _window(query, "startTime", "endTime")
            updates = _window(query, "lastUpdatedStartTime", "lastUpdatedEndTime")
            if starts is None and updates is None:
                message = (
                    "startTime and endTime, or lastUpdatedStartTime and lastUpdatedEndTime, are required"
                )
                raise ApiError(error(400, message))
            starts, updates = starts or _ALWAYS, updates or _ALWAYS
            include_canceled, expansions = _flag(query, "includeCanceled"), _expansions(query)
            numbers = [
                meeting.number
                for meeting in self.copy_meetings().values()
                if meeting.starts_at in starts
                and cut_to_minute(meeting.changed_at) in updates
                and (include_canceled or meeting.last_change is not ChangeKind.CANCELLED)
                and query.get("productId") in {None, product_id(meeting.service)}
            ]
            return numbers, lambda keys: [
                records.api_booking(meeting, **expansions) for meeting in self._remaining(keys)
            ]

        return self._list(request, find)

    async def get_booking(self, request: Request) -> Response:
        number = request.path_params["number"]
        meeting = self.meetings.get(int(number[4:])) if number[4:].isdecimal() else None
        if meeting is None or number != booking_number(meeting.number):
            raise ApiError(not_found())
        return json_response(records.api_booking(meeting, **_expansions(request.query_params)))

    async def list_customers(self, request: Request) -> Response:
        def make_records(numbers: Sequence[int]) -> list[dict[str, Any]]:
            meetings = self._meetings_by_customer()
            return [records.customer(meetings[number]) for number in numbers if number in meetings]

        return self._list(request, lambda _: (list(self._meetings_by_customer()), make_records))

    async def get_customer(self, request: Request) -> Response:
        return json_response(records.customer(self._meetings_of_customer(request)))

    async def list_linked_people(self, request: Request) -> Response:
        people = records.linked_people(self._meetings_of_customer(request)[0].customer)
        return self._list(request, _unfiltered(people))

    async def list_payments(self, request: Request) -> Response:
        def find(query: QueryParams) -> Result:
            window = _window(query, "startTime", "endTime")
            if window is None:
                raise ApiError(error(400, "startTime and endTime are required"))
            paid = [
                meeting.number
                for meeting in self.copy_meetings().values()
                if meeting.last_change is ChangeKind.NO_SHOW
                and meeting.service.price
                and cut_to_minute(meeting.changed_at) in window
            ]
            return paid, lambda numbers: [records.payment(meeting) for meeting in self._remaining(numbers)]

        return self._list(request, find, most=300)

    async def get_hold(self, request: Request) -> Response:
        """Return the hold of the meeting with this number; all others have expired, and there is no list."""
        hold_id = request.path_params["id"]
        is_hold = hold_id.startswith("HOLD") and hold_id[4:].isdecimal()
        meeting = self.meetings.get(int(hold_id[4:])) if is_hold else None
        if meeting is None:
            raise ApiError(not_found())
        return json_response(records.hold(meeting, hold_id))

    async def list_products(self, request: Request) -> Response:
        services = {meeting.service.number: meeting.service for meeting in self.copy_meetings().values()}
        fixed = request.query_params.get("type", "fixed") == "fixed"
        return self._list(
            request, _unfiltered([records.product(service) for service in services.values() if fixed])
        )

    async def list_resources(self, request: Request) -> Response:
        hosts = {meeting.host.number: meeting.host for meeting in self.copy_meetings().values()}
        return self._list(request, _unfiltered(records.resource_types(hosts.values())))

    async def list_languages(self, request: Request) -> Response:
        return self._list(request, _unfiltered(records.LANGUAGES))

    async def get_api_key_info(self, _: Request) -> Response:
        return json_response(records.api_key_info(derive_credential(self.account, "accountId")[:14].upper()))

    async def list_webhooks(self, request: Request) -> Response:
        webhooks = [self.subscriptions.record(subscription) for subscription in self.subscriptions.all()]
        return self._list(request, _unfiltered(webhooks))

    def _remaining(self, numbers: Iterable[int]) -> list[Meeting]:
        """Return those of the meetings that still exist, in their current state."""
        return [meeting for number in numbers if (meeting := self.meetings.get(number))]

    def _meetings_by_customer(self) -> dict[int, list[Meeting]]:
        by_customer: dict[int, list[Meeting]] = {}
        for meeting in self.copy_meetings().values():
            by_customer.setdefault(meeting.customer.number, []).append(meeting)
        return by_customer

    def _meetings_of_customer(self, request: Request) -> list[Meeting]:
        for meetings in self._meetings_by_customer().values():
            if customer_id(meetings[0].customer) == request.path_params["id"]:
                return meetings
        raise ApiError(not_found())

    def _list(self, request: Request, find: Callable[[QueryParams], Result], most: int = 100) -> Response:
        """Return a page of a new search or, with a token, of a stored one.

        The other parameters of a request with a token are not read.
        """
        query = request.query_params
        number, token = _positive(query, "pageNumber", 1), query.get("pageNavigationToken")
        if token is None:
            per_page = _positive(query, "itemsPerPage", _DEFAULT_PER_PAGE)
            if per_page > most or number > 1:
                message = f"itemsPerPage is at most {most}, and pageNumber needs pageNavigationToken"
                raise ApiError(error(400, message))
            return json_response(self._searches.first_page(request.url.path, find(query), per_page))
        page = self._searches.page(request.url.path, token, number)
        if page is None:
            raise ApiError(error(400, "Invalid pageNavigationToken or pageNumber"))
        return json_response(page)


def _unfiltered(entries: Sequence[Mapping[str, Any]]) -> Callable[[QueryParams], Result]:
    """Return a search that finds all of these records."""
    return lambda _: (range(len(entries)), lambda indices: [entries[index] for index in indices])


def _window(query: QueryParams, since: str, until: str) -> _Window | None:
    values = [query[name] for name in (since, until) if name in query]
    if not values:
        return None
    try:
        begin, end = (datetime.fromisoformat(value) for value in values)
        is_too_long = not timedelta(0) <= end - begin <= _LONGEST_WINDOW
        window = _Window(begin.astimezone(UTC), end.astimezone(UTC))
    except (ValueError, TypeError):
        message = f"{since} and {until} must be given together, as times with an offset"
        raise ApiError(error(400, message)) from None
    if is_too_long or begin.tzinfo is None:
        raise ApiError(error(400, f"{since} must be before {until}, by at most {_LONGEST_WINDOW.days} days"))
    return window


def _flag(query: QueryParams, name: str) -> bool:
    value = query.get(name, "false")
    if value not in {"true", "false"}:
        raise ApiError(error(400, f"{name} must be true or false"))
    return value == "true"


def _expansions(query: QueryParams) -> dict[str, bool]:
    return {
        "with_customer": _flag(query, "expandCustomer"),
        "with_participants": _flag(query, "expandParticipants"),
    }


def _positive(query: QueryParams, name: str, default: int) -> int:
    value = query.get(name, str(default))
    if not value.isdecimal() or int(value) < 1:
        raise ApiError(error(400, f"{name} must be a number, from 1"))
    return int(value)
