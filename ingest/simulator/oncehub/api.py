"""OnceHub's REST API (v2, booking calendars).

https://help.oncehub.com/developers/api/
"""

import hmac
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.account import SimulatedAccount, Webhook, format_milliseconds
from ingest.simulator.api import RateLimiter, SimulatedApi, derive_credential, json_response
from ingest.simulator.oncehub.records import (
    BOOKING_PAGES,
    EVENT_TYPES,
    MASTER_PAGES,
    TEAMS,
    Record,
    calendar,
    contact,
    known_since,
    record,
    user,
)
from ingest.simulator.oncehub.responses import (
    error,
    filter_by_time,
    invalid_request,
    parse_id,
    requested_page,
)
from ingest.simulator.oncehub.subscriptions import OncehubSubscriptions, webhook_id
from ingest.simulator.oncehub.webhooks import booking_id, calendar_id, contact_id, status, user_id
from ingest.simulator.subscriptions import Recipient
from ingest.simulator.world import Meeting, Person, Service

_STATUSES = {"requested", "scheduled", "rescheduled", "completed", "canceled", "no_show"}
_EXPANDABLE = frozenset({"owner", "contact", "conversation", "booking_page", "master_page", "event_type"})
_TIME_SLOTS = 8

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
        self.subscriptions = OncehubSubscriptions(account)
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
            Route("/bookings", self._bookings),
            Route("/bookings/{id}", self._booking),
            Route("/users", self._users),
            Route("/teams", lambda request: self._list(request, TEAMS)),
            Route("/contacts", self._contacts),
            Route("/contacts/{id}", self._contact),
            Route("/booking-calendars", self._calendars),
            Route(
                "/booking-calendars/{id}",
                lambda request: json_response(calendar(*self._find_calendar(request))),
            ),
            Route("/booking-calendars/{id}/time-slots", self._time_slots),
            Route("/booking-pages", lambda request: self._list(request, BOOKING_PAGES)),
            Route("/event-types", lambda request: self._list(request, EVENT_TYPES)),
            Route("/master-pages", lambda request: self._list(request, MASTER_PAGES)),
            Route("/webhooks", self._webhooks),
            *self.subscriptions.routes(),
            Route("/test", lambda _: json_response({"message": "The API key is valid"})),
        ]

    def event_of(self, webhook: Webhook) -> str:
        """Return the event's type, never that of a family."""
        return str(orjson.loads(webhook.body)["type"])

    def recipients(self, event: str, meeting: Meeting | None = None) -> Sequence[Recipient]:
        return [subscription.recipient for subscription in self.subscriptions.active(event)]

    def _bookings(self, request: Request) -> Response:
        meetings, query = self._meetings(), request.query_params
        expanded = self._expansions(query, self.prefix)
        if query.get("status", "scheduled") not in _STATUSES:
            raise invalid_request(f"Invalid status: {query['status']}", "status")
        filtered: Iterable[Meeting] = meetings.values()
        for name, word in _WORD_FILTERS.items():
            if name in query:
                filtered = [meeting for meeting in filtered if word(meeting) == query[name]]
        for name, moment in _TIME_FILTERS.items():
            filtered = filter_by_time(query, name, filtered, moment)
        by_number = {meeting.number: meeting for meeting in filtered}
        return self._page(request, by_number, booking_id, lambda number: record(by_number[number], expanded))

    def _booking(self, request: Request) -> Response:
        """Return a booking, or its id and `deleted`.

        https://help.oncehub.com/developers/overview/deleted-resources/
        """
        meetings, id_ = self._meetings(), request.path_params["id"]
        number = parse_id(id_, booking_id)
        if number in meetings:
            return json_response(record(meetings[number], self._expansions(request.query_params)))
        if number in self._known:
            return json_response({"id": id_, "object": "booking", "deleted": True})
        raise invalid_request(f"No such booking: {id_}", "id", 404)

    def _users(self, request: Request) -> Response:
        hosts = {meeting.host.number: meeting.host for meeting in self._meetings().values()}
        email = request.query_params.get("email")
        numbers = {number for number, host in hosts.items() if email in {None, host.email}}
        return self._page(request, numbers, user_id, lambda number: user(hosts[number]))

    def _contacts(self, request: Request) -> Response:
        """List the contacts, which every change to their bookings updates."""
        latest: dict[int, Meeting] = {}
        for meeting in sorted(self._meetings().values(), key=lambda meeting: meeting.changed_at):
            latest[meeting.customer.number] = meeting
        query, meetings = request.query_params, latest.values()
        updated = filter_by_time(query, "last_updated_time", meetings, lambda meeting: meeting.changed_at)
        filtered = filter_by_time(
            query, "creation_time", updated, lambda meeting: known_since(meeting.customer)
        )
        numbers = {
            meeting.customer.number
            for meeting in filtered
            if query.get("email") in {None, meeting.customer.email}
        }

        def make_record(number: int) -> Record:
            return contact(latest[number].customer, latest[number].changed_at)

        return self._page(request, numbers, contact_id, make_record)

    def _contact(self, request: Request) -> Response:
        id_ = request.path_params["id"]
        number = parse_id(id_, contact_id)
        meetings = [meeting for meeting in self._meetings().values() if meeting.customer.number == number]
        if not meetings:
            raise invalid_request(f"No such contact: '{id_}'", "id", 404)
        updated_at = max(meeting.changed_at for meeting in meetings)
        return json_response(contact(meetings[0].customer, updated_at))

    def _calendars(self, request: Request) -> Response:
        calendars = self._calendars_by_service()
        numbers = {
            number
            for number, (_, host) in calendars.items()
            if request.query_params.get("host") in {None, user_id(host.number)}
        }
        return self._page(request, numbers, calendar_id, lambda number: calendar(*calendars[number]))

    def _time_slots(self, request: Request) -> Response:
        """Return a bare array of time slots, which are the hours after the last planned meeting."""
        service, host = self._find_calendar(request)
        last = max(
            meeting.starts_at
            for meeting in self._meetings().values()
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

    def _webhooks(self, request: Request) -> Response:
        webhooks = {subscription.number: subscription for subscription in self.subscriptions.all()}
        return self._page(
            request, webhooks, webhook_id, lambda number: self.subscriptions.record(webhooks[number])
        )

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
            for _, meeting in sorted(self._meetings().items(), reverse=True)
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

    def _meetings(self) -> dict[int, Meeting]:
        """Return a copy, because another thread may change the world."""
        meetings = dict(self.meetings)
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
        page = requested_page(request.query_params, make_id)
        selected, has_more = page.select(sorted(numbers, reverse=True))
        body: Record = {"object": "list", "data": [make_record(number) for number in selected]}
        if self.lists_have_more:
            body["has_more"] = has_more
        links = page.links(request, [make_id(number) for number in selected], has_more=has_more)
        return json_response(body, headers={"Link": links} if links else {})
