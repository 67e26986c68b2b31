"""OnceHub's REST API (v2, booking calendars).

https://help.oncehub.com/developers/api/
"""

import hmac
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

import orjson
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.account import SimulatedAccount, Webhook, format_milliseconds
from ingest.simulator.api import (
    ApiError,
    RateLimiter,
    Recipient,
    SimulatedApi,
    derive_credential,
    is_between,
    json_response,
    read_instant,
)
from ingest.simulator.oncehub import records
from ingest.simulator.oncehub.records import (
    Record,
    booking_id,
    calendar_id,
    contact_id,
    error,
    invalid_request,
    parse_id,
    status,
    user_id,
)
from ingest.simulator.oncehub.subscriptions import OncehubSubscriptions
from ingest.simulator.world import Meeting, Person, Service

_STATUSES = {"requested", "scheduled", "rescheduled", "completed", "canceled", "no_show"}
_EXPANDABLE = frozenset({"owner", "contact", "conversation", "booking_page", "master_page", "event_type"})
_TIME_SLOTS = 8
_MAXIMUM_LIMIT = 100

# The filters of bookings, with the property of a meeting that each compares.
_TIME_FILTERS: Mapping[str, Callable[[Meeting], datetime]] = {
    "creation_time": lambda meeting: meeting.created_at,
    "starting_time": lambda meeting: meeting.starts_at,
    "last_updated_time": lambda meeting: meeting.changed_at,
}
_WORD_FILTERS: Mapping[str, Callable[[Meeting], str]] = {
    "status": status,
    "owner": lambda meeting: user_id(meeting.host.number),
    "host": lambda meeting: user_id(meeting.host.number),
    "contact": lambda meeting: contact_id(meeting.customer.number),
    "booking_calendar": lambda meeting: calendar_id(meeting.service.number),
}


@dataclass(frozen=True, slots=True)
class _Page:
    """A page of a list, by its limit and its cursor.

    https://help.oncehub.com/developers/overview/pagination/
    """

    limit: int
    after: int | None
    before: int | None

    @classmethod
    def requested(cls, query: QueryParams, make_id: Callable[[int], str]) -> Self:
        """Return the page that a query requests from a list of objects with such ids."""
        limit = query.get("limit", "10")
        if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit) <= _MAXIMUM_LIMIT):
            message = f"Out of range value: {limit}. Please provide a number between 1 and {_MAXIMUM_LIMIT}."
            raise invalid_request(message, "limit")
        if "after" in query and "before" in query:
            raise invalid_request("Received both before and after parameters. Please provide only one.")
        cursors = {name: parse_id(query[name], make_id) for name in ("after", "before") if name in query}
        for name, number in cursors.items():
            if number is None:
                raise invalid_request(f"No such object: {query[name]}", name)
        return cls(int(limit), cursors.get("after"), cursors.get("before"))

    def select(self, numbers: Sequence[int]) -> tuple[Sequence[int], bool]:
        """Return the numbers on this page, and whether there are more in its direction."""
        if self.before is not None:
            newer = [number for number in numbers if number > self.before]
            return newer[-self.limit :], len(newer) > self.limit
        older = numbers if self.after is None else [number for number in numbers if number < self.after]
        return older[: self.limit], len(older) > self.limit

    def links(self, request: Request, ids: Sequence[str], *, has_more: bool) -> str:
        """Return the Link header, whose URLs lack the version and the filters, as in OnceHub's example."""
        cursors, root = {}, str(request.scope["root_path"])
        path = root.removesuffix("/v2") + str(request.scope["path"]).removeprefix(root)
        if ids and (has_more or self.before is not None):
            cursors["next"] = f"after={ids[-1]}"
        if ids and (self.after is not None or (has_more and self.before is not None)):
            cursors["previous"] = f"before={ids[0]}"
        url = f"{request.url.scheme}://{request.url.netloc}{path}?limit={self.limit}"
        return ", ".join(f'<{url}&{cursor}>; rel="{relation}"' for relation, cursor in cursors.items())


class OncehubApi(SimulatedApi):
    """The API of one account: lists are newest first, by creation, and paginated by object ids.

    A booking that an earlier request could see and that is gone now is reported as deleted.
    `lists_have_more`: whether lists contain `has_more`; older responses have the Link header only.
    `plan_allows`: whether the account's plan includes the API. `expandable` are the properties that `expand`
    may name, in lists with `prefix` before the name.
    """

    base_path = "/v2"

    def __init__(self, account: SimulatedAccount, meetings: Mapping[int, Meeting]) -> None:
        super().__init__(account, meetings)
        self.lists_have_more = True
        self.plan_allows = True
        self.expandable = _EXPANDABLE
        self.prefix = ""
        self._api_key = derive_credential(account, "API key")
        self.subscriptions: OncehubSubscriptions = OncehubSubscriptions(account)
        self._known: set[int] = set()

    def settings(self) -> Mapping[str, Any]:
        return {"api_key": self._api_key}

    def auth_headers(self) -> Mapping[str, str]:
        return {"API-Key": self._api_key}

    def is_authentic(self, request: Request) -> bool:
        """Compare the key.

        https://help.oncehub.com/developers/overview/authentication/
        """
        return self.plan_allows and hmac.compare_digest(
            request.headers.get("API-Key", "").encode(), self._api_key.encode()
        )

    def unauthorized(self) -> Response:
        """Return the error for a wrong key, or for a plan without the API."""
        if not self.plan_allows:
            return error(403, "authentication_error", "Upgrade to the Enterprise plan to use the API")
        return error(401, "authentication_error", "The API key is missing or invalid")

    def too_many(self, seconds: float) -> Response:
        """Return an error that does not say how long to wait.

        https://help.oncehub.com/developers/overview/rate-limits/
        """
        return error(429, "rate_limit_error", "Request rate limit exceeded")

    def headers(self, limiter: RateLimiter) -> Mapping[str, str]:
        """Return a request id, and nothing about the limit.

        https://help.oncehub.com/developers/overview/request-ids/
        """
        return {"Request-Id": uuid.uuid4().hex}

    def not_found(self) -> Response:
        """Return the error for paths that are not in the specification, such as `/webhook-events`."""
        return error(404, "invalid_request_error", "No such resource")

    def routes(self) -> Sequence[Route]:
        """Return the specification's endpoints for reading, except text messages, and for webhooks."""
        return [
            Route("/bookings", self.list_bookings),
            Route("/bookings/{id}", self.get_booking),
            Route("/users", self.list_users),
            Route("/teams", lambda request: self._list(request, records.TEAMS)),
            Route("/contacts", self.list_contacts),
            Route("/contacts/{id}", self.get_contact),
            Route("/booking-calendars", self.list_calendars),
            Route("/booking-calendars/{id}", self.get_calendar),
            Route("/booking-calendars/{id}/time-slots", self.list_time_slots),
            Route("/booking-pages", lambda request: self._list(request, records.BOOKING_PAGES)),
            Route("/event-types", lambda request: self._list(request, records.EVENT_TYPES)),
            Route("/master-pages", lambda request: self._list(request, records.MASTER_PAGES)),
            Route("/webhooks", self.list_webhooks),
            *self.subscriptions.routes(),
            Route("/test", lambda _: json_response({"message": "The API key is valid"})),
        ]

    def event_of(self, webhook: Webhook) -> str:
        """Return the event's type, never that of a family."""
        return str(orjson.loads(webhook.body)["type"])

    def recipients(self, event: str, meeting: Meeting | None = None) -> Sequence[Recipient]:
        return [subscription.recipient for subscription in self.subscriptions.active(event)]

    def list_bookings(self, request: Request) -> Response:
        meetings, query = self._known_meetings(), request.query_params
        expanded = self._expansions(query, self.prefix)
        if query.get("status", "scheduled") not in _STATUSES:
            raise invalid_request(f"Invalid status: {query['status']}", "status")
        filtered: Iterable[Meeting] = meetings.values()
        for name, word in _WORD_FILTERS.items():
            if name in query:
                filtered = [meeting for meeting in filtered if word(meeting) == query[name]]
        for name, moment in _TIME_FILTERS.items():
            filtered = _filter_by_time(query, name, filtered, moment)
        by_number = {meeting.number: meeting for meeting in filtered}
        return self._page(
            request, by_number, booking_id, lambda number: records.record(by_number[number], expanded)
        )

    def get_booking(self, request: Request) -> Response:
        """Return a booking, or its id and `deleted`.

        https://help.oncehub.com/developers/overview/deleted-resources/
        """
        meetings, id_ = self._known_meetings(), request.path_params["id"]
        number = parse_id(id_, booking_id)
        if number in meetings:
            return json_response(records.record(meetings[number], self._expansions(request.query_params)))
        if number in self._known:
            return json_response({"id": id_, "object": "booking", "deleted": True})
        raise invalid_request(f"No such booking: {id_}", "id", 404)

    def list_users(self, request: Request) -> Response:
        hosts = {meeting.host.number: meeting.host for meeting in self._known_meetings().values()}
        email = request.query_params.get("email")
        numbers = {number for number, host in hosts.items() if email in {None, host.email}}
        return self._page(request, numbers, user_id, lambda number: records.user(hosts[number]))

    def list_contacts(self, request: Request) -> Response:
        """List the contacts, which every change to their bookings updates."""
        latest: dict[int, Meeting] = {}
        for meeting in sorted(self._known_meetings().values(), key=lambda meeting: meeting.changed_at):
            latest[meeting.customer.number] = meeting
        query, meetings = request.query_params, latest.values()
        updated = _filter_by_time(query, "last_updated_time", meetings, lambda meeting: meeting.changed_at)
        filtered = _filter_by_time(
            query, "creation_time", updated, lambda meeting: meeting.customer.known_since
        )
        numbers = {
            meeting.customer.number
            for meeting in filtered
            if query.get("email") in {None, meeting.customer.email}
        }

        def make_record(number: int) -> Record:
            return records.contact(latest[number].customer, latest[number].changed_at)

        return self._page(request, numbers, contact_id, make_record)

    def get_contact(self, request: Request) -> Response:
        id_ = request.path_params["id"]
        number = parse_id(id_, contact_id)
        meetings = [
            meeting for meeting in self._known_meetings().values() if meeting.customer.number == number
        ]
        if not meetings:
            raise invalid_request(f"No such contact: '{id_}'", "id", 404)
        updated_at = max(meeting.changed_at for meeting in meetings)
        return json_response(records.contact(meetings[0].customer, updated_at))

    def list_calendars(self, request: Request) -> Response:
        calendars = self._calendars_by_service()
        numbers = {
            number
            for number, (_, host) in calendars.items()
            if request.query_params.get("host") in {None, user_id(host.number)}
        }
        return self._page(request, numbers, calendar_id, lambda number: records.calendar(*calendars[number]))

    def get_calendar(self, request: Request) -> Response:
        return json_response(records.calendar(*self._find_calendar(request)))

    def list_time_slots(self, request: Request) -> Response:
        """Return a bare array of time slots, which are the hours after the last planned meeting."""
        service, host = self._find_calendar(request)
        last = max(
            meeting.starts_at
            for meeting in self._known_meetings().values()
            if meeting.service.number == service.number
        )
        locations = (
            {"type": "virtual", "value": "google_meet", "id": None},
            {"type": "physical", "value": None, "id": "ADD-00000001"},
            {"type": "guest_phone", "value": host.phone, "id": None},
        )
        starts = [last + timedelta(hours=hours) for hours in range(1, _TIME_SLOTS + 1)]
        return json_response(
            [
                {"start_time": format_milliseconds(start), "locations": locations[: 1 + position % 3]}
                for position, start in enumerate(starts)
            ]
        )

    def list_webhooks(self, request: Request) -> Response:
        webhooks = {subscription.number: subscription for subscription in self.subscriptions.all()}

        def make_record(number: int) -> Record:
            return self.subscriptions.record(webhooks[number])

        return self._page(request, webhooks, self.subscriptions.make_id, make_record)

    def _find_calendar(self, request: Request) -> tuple[Service, Person]:
        id_, calendars = request.path_params["id"], self._calendars_by_service()
        number = parse_id(id_, calendar_id)
        if number not in calendars:
            raise invalid_request(f"No such booking calendar: {id_}", "id", 404)
        return calendars[number]

    def _calendars_by_service(self) -> dict[int, tuple[Service, Person]]:
        """Return a calendar for each service, with the host of its first meeting."""
        return {
            meeting.service.number: (meeting.service, meeting.host)
            for _, meeting in sorted(self._known_meetings().items(), reverse=True)
        }

    def _expansions(self, query: QueryParams, prefix: str = "") -> set[str]:
        """Return the properties to expand.

        https://help.oncehub.com/developers/overview/expanding-responses/
        """
        names = [name for name in query.get("expand", "").split(",") if name]
        for name in names:
            if not name.startswith(prefix) or name.removeprefix(prefix) not in self.expandable:
                raise invalid_request(f"This property cannot be expanded: {name}", "expand")
        return {name.removeprefix(prefix) for name in names}

    def _known_meetings(self) -> dict[int, Meeting]:
        """Return a copy of the meetings, which from then on are reported as deleted when they are gone."""
        meetings = self.copy_meetings()
        self._known.update(meetings)
        return meetings

    def _list(self, request: Request, objects: Mapping[int, Record]) -> Response:
        return self._page(request, objects, lambda number: str(objects[number]["id"]), objects.__getitem__)

    def _page(
        self,
        request: Request,
        numbers: Iterable[int],
        make_id: Callable[[int], str],
        make_record: Callable[[int], Record],
    ) -> Response:
        """Return the requested page.

        Numbers grow in order of creation, so ids are cursors, even those of objects that no longer exist.
        """
        page = _Page.requested(request.query_params, make_id)
        selected, has_more = page.select(sorted(numbers, reverse=True))
        body: Record = {"object": "list", "data": [make_record(number) for number in selected]}
        if self.lists_have_more:
            body["has_more"] = has_more
        links = page.links(request, [make_id(number) for number in selected], has_more=has_more)
        return json_response(body, headers={"Link": links} if links else {})


def _filter_by_time(
    query: QueryParams, name: str, meetings: Iterable[Meeting], moment: Callable[[Meeting], datetime]
) -> list[Meeting]:
    """Return the meetings strictly between the bounds."""

    def invalid_date(parameter: str) -> ApiError:
        return invalid_request(f"Invalid date: {query[parameter]}", parameter)

    after, before = (read_instant(query, f"{name}.{side}", invalid_date) for side in ("gt", "lt"))
    if after and before and after > before:
        raise invalid_request(f"{name}.gt cannot be later than {name}.lt", f"{name}.gt")
    is_included = is_between(after, before, inclusive=False)
    return [meeting for meeting in meetings if is_included(moment(meeting))]
