"""Bookeo's REST API.

https://www.bookeo.com/apiref/

Times are cut to the minute, including those that `lastUpdatedStartTime` and `lastUpdatedEndTime` are compared
with. Canceled bookings, customers and participants are left out unless they are requested.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.account import SimulatedAccount, Webhook
from ingest.simulator.api import ApiError, SimulatedApi, derive_credential, json_response
from ingest.simulator.bookeo.records import (
    LANGUAGES,
    api_booking,
    api_key_info,
    customer,
    error,
    hold,
    linked_people,
    not_found,
    payment,
    product,
    resource_types,
)
from ingest.simulator.bookeo.searches import DEFAULT_PER_PAGE, Result, Searches
from ingest.simulator.bookeo.subscriptions import BookeoSubscriptions, event_of_query
from ingest.simulator.bookeo.webhooks import booking_number, customer_id, cut_to_minute, product_id
from ingest.simulator.subscriptions import Recipient
from ingest.simulator.world import ChangeKind, Meeting

_LONGEST_WINDOW = timedelta(days=31)


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
        self.subscriptions = BookeoSubscriptions(account)
        self.retry_after_in: Literal["header", "body"] = "header"
        self._searches = Searches()

    def settings(self) -> Mapping[str, Any]:
        return {"secret_key": self.account.secret, "api_key": self.api_key}

    def auth_headers(self) -> Mapping[str, str]:
        return {"X-Bookeo-secretKey": self.account.secret, "X-Bookeo-apiKey": self.api_key}

    def routes(self) -> Sequence[Route]:
        return [
            Route("/bookings", self._bookings),
            Route("/bookings/{number}", self._booking),
            Route("/customers", self._customers),
            Route("/customers/{id}", self._customer),
            Route("/customers/{id}/linkedpeople", self._linked_people),
            Route("/payments", self._payments),
            Route("/holds/{id}", self._hold),
            Route("/settings/products", self._products),
            Route("/settings/resources", self._resources),
            Route("/settings/languages", lambda request: self._list(request, _unfiltered(LANGUAGES))),
            Route("/settings/apikeyinfo", self._api_key_info),
            Route(
                "/webhooks", lambda request: self._list(request, _unfiltered(self.subscriptions.records()))
            ),
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
        return event_of_query(webhook.query)

    def recipients(self, event: str, meeting: Meeting | None = None) -> Sequence[Recipient]:
        return [subscription.recipient for subscription in self.subscriptions.active(event)]

    async def _bookings(self, request: Request) -> Response:
        return self._list(request, self._find_bookings)

    async def _booking(self, request: Request) -> Response:
        number = request.path_params["number"]
        meeting = self.meetings.get(int(number[4:])) if number[4:].isdecimal() else None
        if meeting is None or number != booking_number(meeting.number):
            raise ApiError(not_found())
        return json_response(api_booking(meeting, **_expansions(request.query_params)))

    async def _customers(self, request: Request) -> Response:
        def records(numbers: Sequence[int]) -> list[dict[str, Any]]:
            meetings = self._meetings_by_customer()
            return [customer(meetings[number]) for number in numbers if number in meetings]

        return self._list(request, lambda _: (list(self._meetings_by_customer()), records))

    async def _customer(self, request: Request) -> Response:
        return json_response(customer(self._meetings_of_customer(request)))

    async def _linked_people(self, request: Request) -> Response:
        people = linked_people(self._meetings_of_customer(request)[0].customer)
        return self._list(request, _unfiltered(people))

    async def _payments(self, request: Request) -> Response:
        def find(query: QueryParams) -> Result:
            window = _window(query, "startTime", "endTime")
            if window is None:
                raise ApiError(error(400, "startTime and endTime are required"))
            paid = [
                meeting.number
                for meeting in self._all_meetings()
                if meeting.last_change is ChangeKind.NO_SHOW
                and meeting.service.price
                and cut_to_minute(meeting.changed_at) in window
            ]
            return paid, lambda numbers: [payment(meeting) for meeting in self._remaining(numbers)]

        return self._list(request, find, most=300)

    async def _hold(self, request: Request) -> Response:
        """Return the hold of the meeting with this number; all others have expired, and there is no list."""
        hold_id = request.path_params["id"]
        is_hold = hold_id.startswith("HOLD") and hold_id[4:].isdecimal()
        meeting = self.meetings.get(int(hold_id[4:])) if is_hold else None
        if meeting is None:
            raise ApiError(not_found())
        return json_response(hold(meeting, hold_id))

    async def _products(self, request: Request) -> Response:
        services = {meeting.service.number: meeting.service for meeting in self._all_meetings()}
        fixed = request.query_params.get("type", "fixed") == "fixed"
        return self._list(request, _unfiltered([product(service) for service in services.values() if fixed]))

    async def _resources(self, request: Request) -> Response:
        hosts = {meeting.host.number: meeting.host for meeting in self._all_meetings()}
        return self._list(request, _unfiltered(resource_types(hosts.values())))

    async def _api_key_info(self, _: Request) -> Response:
        return json_response(api_key_info(derive_credential(self.account, "accountId")[:14].upper()))

    def _all_meetings(self) -> list[Meeting]:
        """Return a copy, because another thread may change the world."""
        return list(self.meetings.values())

    def _remaining(self, numbers: Iterable[int]) -> list[Meeting]:
        """Return those of the meetings that still exist, in their current state."""
        return [meeting for number in numbers if (meeting := self.meetings.get(number))]

    def _meetings_by_customer(self) -> dict[int, list[Meeting]]:
        by_customer: dict[int, list[Meeting]] = {}
        for meeting in self._all_meetings():
            by_customer.setdefault(meeting.customer.number, []).append(meeting)
        return by_customer

    def _meetings_of_customer(self, request: Request) -> list[Meeting]:
        for meetings in self._meetings_by_customer().values():
            if customer_id(meetings[0].customer) == request.path_params["id"]:
                return meetings
        raise ApiError(not_found())

    def _find_bookings(self, query: QueryParams) -> Result:
        starts = _window(query, "startTime", "endTime")
        updates = _window(query, "lastUpdatedStartTime", "lastUpdatedEndTime")
        if starts is None and updates is None:
            message = "startTime and endTime, or lastUpdatedStartTime and lastUpdatedEndTime, are required"
            raise ApiError(error(400, message))
        starts, updates = starts or _ALWAYS, updates or _ALWAYS
        include_canceled, expansions = _flag(query, "includeCanceled"), _expansions(query)
        numbers = [
            meeting.number
            for meeting in self._all_meetings()
            if meeting.starts_at in starts
            and cut_to_minute(meeting.changed_at) in updates
            and (include_canceled or meeting.last_change is not ChangeKind.CANCELLED)
            and query.get("productId") in {None, product_id(meeting.service)}
        ]
        return numbers, lambda keys: [api_booking(meeting, **expansions) for meeting in self._remaining(keys)]

    def _list(self, request: Request, find: Callable[[QueryParams], Result], most: int = 100) -> Response:
        """Return a page of a new search or, with a token, of a stored one.

        The other parameters of a request with a token are not read.
        """
        query = request.query_params
        number, token = _positive(query, "pageNumber", 1), query.get("pageNavigationToken")
        if token is None:
            per_page = _positive(query, "itemsPerPage", DEFAULT_PER_PAGE)
            if per_page > most or number > 1:
                message = f"itemsPerPage is at most {most}, and pageNumber needs pageNavigationToken"
                raise ApiError(error(400, message))
            return json_response(self._searches.first_page(request.url.path, find(query), per_page))
        page = self._searches.page(request.url.path, token, number)
        if page is None:
            raise ApiError(error(400, "Invalid pageNavigationToken or pageNumber"))
        return json_response(page)


def _unfiltered(records: Sequence[Mapping[str, Any]]) -> Callable[[QueryParams], Result]:
    """Return a search that finds all of these records."""
    return lambda _: (range(len(records)), lambda indices: [records[index] for index in indices])


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
