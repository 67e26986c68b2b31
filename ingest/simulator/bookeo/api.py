"""Bookeo's REST side. https://www.bookeo.com/apiref/

Times are cut to the minute, those that `lastUpdated…` is compared with too. Without asking there are no canceled bookings,
no customers and no participants.
"""

import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.api import Answered, RestDialect, answer, credential
from ingest.simulator.bookeo.answers import error, missing
from ingest.simulator.bookeo.pages import DEFAULT, Found, Searches
from ingest.simulator.bookeo.records import (
    LANGUAGES,
    customer,
    hold,
    key,
    linked_people,
    payment,
    product,
    read,
    resources,
)
from ingest.simulator.bookeo.subscriptions import BookeoSubscriptions, event_of_query
from ingest.simulator.bookeo.webhooks import booking_number, customer_id, product_id
from ingest.simulator.dialect import Dialect, Webhook
from ingest.simulator.subscriptions import Recipient
from ingest.simulator.world import Kind, Meeting

_LONGEST = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class _Window:
    """Both ends are in it."""

    since: datetime
    until: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.since <= moment <= self.until


_ALWAYS = _Window(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


class BookeoRest(RestDialect):
    """Two keys open it: the application's, which signs webhooks too, and the account's.

    `tells_pause`: where an answer over the limit says for how long, in its "header" or its "body".
    """

    vendor = "bookeo"
    base_path = "/v2"

    def __init__(self, dialect: Dialect, meetings: Mapping[int, Meeting]) -> None:
        super().__init__(dialect, meetings)
        self.api_key = credential(dialect, "api_key")
        self.subscriptions = BookeoSubscriptions(dialect)
        self.tells_pause = "header"
        self._searches = Searches()

    def settings(self) -> Mapping[str, Any]:
        return {"secret_key": self.dialect.secret, "api_key": self.api_key}

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
            Route("/settings/languages", self._languages),
            Route("/settings/apikeyinfo", self._key),
            Route("/webhooks", self._webhooks),
            *self.subscriptions.routes(),
        ]

    def authentic(self, request: Request) -> bool:
        """In headers or in the query. https://www.bookeo.com/api/protocol/"""
        sent = [
            request.headers.get(f"X-Bookeo-{name}", request.query_params.get(name))
            for name in ("secretKey", "apiKey")
        ]
        return sent == [self.dialect.secret, self.api_key]

    def unauthorized(self) -> Response:
        return error(403, "Invalid secret key or API key")

    def too_many(self, seconds: float) -> Response:
        pause = math.ceil(seconds)
        if self.tells_pause == "body":
            return answer(
                {
                    "httpStatus": 429,
                    "message": "Too many requests",
                    "errorId": uuid.uuid4().hex,
                    "retryAfter": pause,
                },
                429,
            )
        return error(429, "Too many requests", {"Retry-After": str(pause)})

    def missing(self) -> Response:
        return missing()

    def event_of(self, webhook: Webhook) -> str:
        """`bookings.created`, though Bookeo has two words for it."""
        return event_of_query(webhook.query)

    def recipients(self, event: str, meeting: Meeting | None = None) -> Sequence[Recipient]:
        return [kept.recipient for kept in self.subscriptions.hearing(event)]

    async def _bookings(self, request: Request) -> Response:
        return self._listed(request, self._search)

    async def _booking(self, request: Request) -> Response:
        number = request.path_params["number"]
        meeting = self.meetings.get(int(number[4:])) if number[4:].isdecimal() else None
        if meeting is None or number != booking_number(meeting.number):
            raise Answered(missing())
        return answer(read(meeting, **_expanded(request.query_params)))

    async def _customers(self, request: Request) -> Response:
        def told(numbers: Sequence[int]) -> list[dict[str, Any]]:
            booked = self._booked()
            return [customer(booked[number]) for number in numbers if number in booked]

        return self._listed(request, lambda _: (list(self._booked()), told))

    async def _customer(self, request: Request) -> Response:
        return answer(customer(self._booked_by(request)))

    async def _linked_people(self, request: Request) -> Response:
        return self._listed(request, _all(linked_people(self._booked_by(request)[0].customer)))

    async def _payments(self, request: Request) -> Response:
        def search(query: QueryParams) -> Found:
            window = _window(query, "startTime", "endTime")
            if window is None:
                raise Answered(error(400, "startTime and endTime are required"))
            missed = [
                meeting for meeting in self._all() if meeting.last is Kind.NO_SHOW and meeting.service.price
            ]
            paid = [meeting.number for meeting in missed if _minute(meeting.changed_at) in window]
            return paid, lambda some: [payment(meeting) for meeting in self._still(some)]

        return self._listed(request, search, most=300)

    async def _hold(self, request: Request) -> Response:
        """There is no list of them. Each is of a meeting, by its number; all others are gone by now."""
        given = request.path_params["id"]
        meeting = (
            self.meetings.get(int(given[4:])) if given.startswith("HOLD") and given[4:].isdecimal() else None
        )
        if meeting is None:
            raise Answered(missing())
        return answer(hold(meeting, given))

    async def _products(self, request: Request) -> Response:
        services = {meeting.service.number: meeting.service for meeting in self._all()}
        fixed = request.query_params.get("type", "fixed") == "fixed"
        return self._listed(request, _all([product(service) for service in services.values() if fixed]))

    async def _resources(self, request: Request) -> Response:
        hosts = {meeting.host.number: meeting.host for meeting in self._all()}
        return self._listed(request, _all(resources(hosts.values())))

    async def _languages(self, request: Request) -> Response:
        return self._listed(request, _all(LANGUAGES))

    async def _key(self, _: Request) -> Response:
        return answer(key(credential(self.dialect, "accountId")[:14].upper()))

    async def _webhooks(self, request: Request) -> Response:
        return self._listed(request, _all(self.subscriptions.told()))

    def _all(self) -> list[Meeting]:
        """Copied at once: the world may go on in another thread."""
        return list(self.meetings.values())

    def _still(self, numbers: Iterable[int]) -> list[Meeting]:
        """Those that are there, as they are by now."""
        return [meeting for number in numbers if (meeting := self.meetings.get(number))]

    def _booked(self) -> dict[int, list[Meeting]]:
        """Meetings by customer."""
        found: dict[int, list[Meeting]] = {}
        for meeting in self._all():
            found.setdefault(meeting.customer.number, []).append(meeting)
        return found

    def _booked_by(self, request: Request) -> list[Meeting]:
        found = next(
            (
                every
                for every in self._booked().values()
                if customer_id(every[0].customer) == request.path_params["id"]
            ),
            None,
        )
        if found is None:
            raise Answered(missing())
        return found

    def _search(self, query: QueryParams) -> Found:
        starts, updated = (
            _window(query, "startTime", "endTime"),
            _window(query, "lastUpdatedStartTime", "lastUpdatedEndTime"),
        )
        if starts is None and updated is None:
            raise Answered(
                error(
                    400, "startTime and endTime, or lastUpdatedStartTime and lastUpdatedEndTime, are required"
                )
            )
        starts, updated = starts or _ALWAYS, updated or _ALWAYS
        canceled, of, expanded = _flag(query, "includeCanceled"), query.get("productId"), _expanded(query)
        numbers = [
            meeting.number
            for meeting in self._all()
            if meeting.starts_at in starts
            and _minute(meeting.changed_at) in updated
            and (canceled or meeting.last is not Kind.CANCELLED)
            and of in {None, product_id(meeting.service)}
        ]
        return numbers, lambda some: [read(meeting, **expanded) for meeting in self._still(some)]

    def _listed(self, request: Request, search: Callable[[QueryParams], Found], most: int = 100) -> Response:
        """With a page's token no search is needed, and whatever there is of one is not looked at."""
        query = request.query_params
        number, token = _number(query, "pageNumber", 1), query.get("pageNavigationToken")
        if token is None:
            per_page = _number(query, "itemsPerPage", DEFAULT)
            if per_page > most or number > 1:
                raise Answered(
                    error(400, f"itemsPerPage is at most {most}, and pageNumber needs pageNavigationToken")
                )
            return answer(self._searches.first(request.url.path, search(query), per_page))
        body = self._searches.page(request.url.path, token, number)
        if body is None:
            raise Answered(error(400, "Invalid pageNavigationToken or pageNumber"))
        return answer(body)


def _all(records: Sequence[Mapping[str, Any]]) -> Callable[[QueryParams], Found]:
    """A list that cannot be searched, and is short."""
    return lambda _: (range(len(records)), lambda places: [records[place] for place in places])


def _window(query: QueryParams, since: str, until: str) -> _Window | None:
    given = [query[name] for name in (since, until) if name in query]
    if not given:
        return None
    try:
        begin, end = (datetime.fromisoformat(text) for text in given)
        too_long = not timedelta(0) <= end - begin <= _LONGEST
        window = _Window(begin.astimezone(UTC), end.astimezone(UTC))
    except (ValueError, TypeError):
        raise Answered(
            error(400, f"{since} and {until} must be given together, as times with an offset")
        ) from None
    if too_long or begin.tzinfo is None:
        raise Answered(error(400, f"{since} must be before {until}, by at most {_LONGEST.days} days"))
    return window


def _minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _flag(query: QueryParams, name: str) -> bool:
    given = query.get(name, "false")
    if given not in {"true", "false"}:
        raise Answered(error(400, f"{name} must be true or false"))
    return given == "true"


def _expanded(query: QueryParams) -> dict[str, bool]:
    return {
        "with_customer": _flag(query, "expandCustomer"),
        "with_participants": _flag(query, "expandParticipants"),
    }


def _number(query: QueryParams, name: str, default: int) -> int:
    given = query.get(name, str(default))
    if not given.isdecimal() or int(given) < 1:
        raise Answered(error(400, f"{name} must be a number, from 1"))
    return int(given)


REST = BookeoRest
