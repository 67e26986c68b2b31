"""OnceHub's REST side (API v2, booking calendars). https://help.oncehub.com/developers/api/"""

import hmac
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.api import Counter, RestDialect, answer, credential
from ingest.simulator.dialect import Dialect, Webhook, milliseconds
from ingest.simulator.oncehub.answers import error, number_of, refused
from ingest.simulator.oncehub.records import (
    BOOKING_PAGES,
    EVENT_TYPES,
    MASTER_PAGES,
    TEAMS,
    Object,
    calendar,
    contact,
    known_since,
    record,
    user,
)
from ingest.simulator.oncehub.subscriptions import OncehubSubscriptions, webhook_id
from ingest.simulator.oncehub.webhooks import booking_id, calendar_id, contact_id, status, user_id
from ingest.simulator.subscriptions import Recipient
from ingest.simulator.world import Meeting, Person, Service

_MOST = 100
_STATUSES = {"requested", "scheduled", "rescheduled", "completed", "canceled", "no_show"}
_EXPANDABLE = frozenset({"owner", "contact", "conversation", "booking_page", "master_page", "event_type"})
_SLOTS = 8
_NOTHING, _MILLISECOND = timedelta(0), timedelta(milliseconds=1)

# What bookings are asked for by, and what of a meeting that is.
_TIMES: Mapping[str, Callable[[Meeting], datetime]] = {
    "creation_time": lambda meeting: meeting.created_at,
    "starting_time": lambda meeting: meeting.starts_at,
    "last_updated_time": lambda meeting: meeting.changed_at,
}
_WORDS: Mapping[str, Callable[[Meeting], str]] = {
    "status": status,
    "owner": lambda meeting: user_id(meeting.host.number),
    "host": lambda meeting: user_id(meeting.host.number),
    "contact": lambda meeting: contact_id(meeting.customer.number),
    "booking_calendar": lambda meeting: calendar_id(meeting.service.number),
}


class OncehubRest(RestDialect):
    """Lists are newest first, by creation, ten at a time unless told, and paged by object ids.

    A booking that was there when something was asked, and now is not, is told as deleted.
    `tells_more`: whether lists say `has_more`; older answers leave that to the Link header.
    `plan_allows`: whether the account's plan includes the API. `expandable`: what `expand` may name; `prefix`: what lists want before it.
    """

    vendor = "oncehub"
    base_path = "/v2"

    def __init__(self, dialect: Dialect, meetings: Mapping[int, Meeting]) -> None:
        super().__init__(dialect, meetings)
        self.tells_more = True
        self.plan_allows = True
        self.expandable = _EXPANDABLE
        self.prefix = ""
        self._api_key = credential(dialect, "API key")
        self.subscriptions = OncehubSubscriptions(dialect)
        self._told: set[int] = set()

    def settings(self) -> Mapping[str, Any]:
        """One key."""
        return {"api_key": self._api_key}

    def authentic(self, request: Request) -> bool:
        """https://help.oncehub.com/developers/overview/authentication/"""
        return self.plan_allows and hmac.compare_digest(
            request.headers.get("API-Key", "").encode(), self._api_key.encode()
        )

    def unauthorized(self) -> Response:
        """Of the wrong key, or of the wrong plan."""
        if not self.plan_allows:
            return error(403, "authentication_error", "Upgrade to the Enterprise plan to use the API")
        return error(401, "authentication_error", "The API key is missing or invalid")

    def too_many(self, seconds: float) -> Response:
        """How long is not told. https://help.oncehub.com/developers/overview/rate-limits/"""
        return error(429, "rate_limit_error", "Request rate limit exceeded")

    def headers(self, counter: Counter) -> Mapping[str, str]:
        """Nor is what is left. https://help.oncehub.com/developers/overview/request-ids/"""
        return {"Request-Id": uuid.uuid4().hex}

    def missing(self) -> Response:
        """Of what is not in the specification, such as `/webhook-events`."""
        return error(404, "invalid_request_error", "No such resource")

    def routes(self) -> Sequence[Route]:
        """All that OnceHub's specification has for reading, but for text messages, and webhooks for writing."""
        return [
            Route("/bookings", self._bookings),
            Route("/bookings/{id}", self._booking),
            Route("/users", self._users),
            Route("/teams", lambda request: self._listed(request, TEAMS)),
            Route("/contacts", self._contacts),
            Route("/contacts/{id}", self._contact),
            Route("/booking-calendars", self._calendars),
            Route("/booking-calendars/{id}", lambda request: answer(calendar(*self._find_calendar(request)))),
            Route("/booking-calendars/{id}/time-slots", self._slots),
            Route("/booking-pages", lambda request: self._listed(request, BOOKING_PAGES)),
            Route("/event-types", lambda request: self._listed(request, EVENT_TYPES)),
            Route("/master-pages", lambda request: self._listed(request, MASTER_PAGES)),
            Route("/webhooks", self._webhooks),
            *self.subscriptions.routes(),
            Route("/test", lambda _: answer({"message": "The API key is valid"})),
        ]

    def event_of(self, webhook: Webhook) -> str:
        """Never a family's word."""
        return str(orjson.loads(webhook.body)["type"])

    def recipients(self, event: str, meeting: Meeting | None = None) -> Sequence[Recipient]:
        return [kept.recipient for kept in self.subscriptions.hearing(event)]

    def _bookings(self, request: Request) -> Response:
        meetings, asked = self._now(), request.query_params
        expanded = self._expanded(asked, self.prefix)
        if asked.get("status", "scheduled") not in _STATUSES:
            raise refused(f"Invalid status: {asked['status']}", "status")
        found: Iterable[Meeting] = meetings.values()
        for name, word in _WORDS.items():
            if name in asked:
                found = [meeting for meeting in found if word(meeting) == asked[name]]
        for name, moment in _TIMES.items():
            found = _between(asked, name, found, moment)
        records = {meeting.number: meeting for meeting in found}
        return self._page(request, records, booking_id, lambda number: record(records[number], expanded))

    def _booking(self, request: Request) -> Response:
        """Of a deleted one only that is told. https://help.oncehub.com/developers/overview/deleted-resources/"""
        meetings, given = self._now(), request.path_params["id"]
        number = number_of(given, booking_id)
        if number in meetings:
            return answer(record(meetings[number], self._expanded(request.query_params)))
        if number in self._told:
            return answer({"id": given, "object": "booking", "deleted": True})
        raise refused(f"No such booking: {given}", "id", 404)

    def _users(self, request: Request) -> Response:
        hosts = {meeting.host.number: meeting.host for meeting in self._now().values()}
        email = request.query_params.get("email")
        wanted = {number for number, host in hosts.items() if email in {None, host.email}}
        return self._page(request, wanted, user_id, lambda number: user(hosts[number]))

    def _contacts(self, request: Request) -> Response:
        """A contact is updated by all that happens to its bookings."""
        latest: dict[int, Meeting] = {}
        for meeting in sorted(self._now().values(), key=lambda meeting: meeting.changed_at):
            latest[meeting.customer.number] = meeting
        asked = request.query_params
        found = _between(asked, "last_updated_time", latest.values(), lambda meeting: meeting.changed_at)
        found = _between(asked, "creation_time", found, lambda meeting: known_since(meeting.customer))
        wanted = {
            meeting.customer.number
            for meeting in found
            if asked.get("email") in {None, meeting.customer.email}
        }
        return self._page(
            request,
            wanted,
            contact_id,
            lambda number: contact(latest[number].customer, latest[number].changed_at),
        )

    def _contact(self, request: Request) -> Response:
        given = request.path_params["id"]
        number = number_of(given, contact_id)
        booked = [meeting for meeting in self._now().values() if meeting.customer.number == number]
        if not booked:
            raise refused(f"No such contact: '{given}'", "id", 404)
        return answer(contact(booked[0].customer, max(meeting.changed_at for meeting in booked)))

    def _calendars(self, request: Request) -> Response:
        calendars = self._services()
        wanted = {
            number
            for number, (_, host) in calendars.items()
            if request.query_params.get("host") in {None, user_id(host.number)}
        }
        return self._page(request, wanted, calendar_id, lambda number: calendar(*calendars[number]))

    def _slots(self, request: Request) -> Response:
        """Free are the hours after the last meeting that is planned. The answer is an array, without anything around it."""
        service, host = self._find_calendar(request)
        last = max(
            meeting.starts_at for meeting in self._now().values() if meeting.service.number == service.number
        )
        places = (
            {"type": "virtual", "value": "google_meet", "id": None},
            {"type": "physical", "value": None, "id": "ADD-00000001"},
            {"type": "guest_phone", "value": host.phone, "id": None},
        )
        starts = [last + timedelta(hours=hours) for hours in range(1, _SLOTS + 1)]
        return answer(
            [
                {"start_time": milliseconds(start), "locations": places[: 1 + place % 3]}
                for place, start in enumerate(starts)
            ]
        )

    def _webhooks(self, request: Request) -> Response:
        webhooks = {kept.number: kept for kept in self.subscriptions.all()}
        return self._page(
            request, webhooks, webhook_id, lambda number: self.subscriptions.told(webhooks[number])
        )

    def _find_calendar(self, request: Request) -> tuple[Service, Person]:
        given, calendars = request.path_params["id"], self._services()
        number = number_of(given, calendar_id)
        if number not in calendars:
            raise refused(f"No such booking calendar: {given}", "id", 404)
        return calendars[number]

    def _services(self) -> dict[int, tuple[Service, Person]]:
        """Each is a calendar, of whoever held it first."""
        return {
            meeting.service.number: (meeting.service, meeting.host)
            for _, meeting in sorted(self._now().items(), reverse=True)
        }

    def _expanded(self, asked: QueryParams, prefix: str = "") -> set[str]:
        """https://help.oncehub.com/developers/overview/expanding-responses/"""
        names = [name for name in asked.get("expand", "").split(",") if name]
        for name in names:
            if not name.startswith(prefix) or name.removeprefix(prefix) not in self.expandable:
                raise refused(f"This property cannot be expanded: {name}", "expand")
        return {name.removeprefix(prefix) for name in names}

    def _now(self) -> dict[int, Meeting]:
        meetings = dict(self.meetings)
        self._told.update(meetings)
        return meetings

    def _listed(self, request: Request, objects: Mapping[int, Object]) -> Response:
        return self._page(request, objects, lambda number: str(objects[number]["id"]), objects.__getitem__)

    def _page(
        self,
        request: Request,
        numbers: Iterable[int],
        name: Callable[[int], str],
        write: Callable[[int], Object],
    ) -> Response:
        """Numbers are given in order of creation, so that ids are cursors, also those of what is no longer there."""
        page = _asked_page(request.query_params, name)
        chosen, more = page.of(sorted(numbers, reverse=True))
        body = {"object": "list", "data": [write(number) for number in chosen]}
        links = page.links(request, [name(number) for number in chosen], more)
        return answer(
            body | ({"has_more": more} if self.tells_more else {}), headers={"Link": links} if links else {}
        )


@dataclass(frozen=True, slots=True)
class _Page:
    """https://help.oncehub.com/developers/overview/pagination/"""

    limit: int
    after: int | None
    before: int | None

    def of(self, numbers: Sequence[int]) -> tuple[Sequence[int], bool]:
        """Those on this page, and whether there are more in its direction."""
        if self.before is not None:
            newer = [number for number in numbers if number > self.before]
            return newer[-self.limit :], len(newer) > self.limit
        older = numbers if self.after is None else [number for number in numbers if number < self.after]
        return older[: self.limit], len(older) > self.limit

    def links(self, request: Request, ids: Sequence[str], more: bool) -> str:
        """As in OnceHub's own example: neither the version nor the filters are in these addresses."""
        found, root = {}, str(request.scope["root_path"])
        path = root.removesuffix("/v2") + str(request.scope["path"]).removeprefix(root)
        if ids and (more or self.before is not None):
            found["next"] = f"after={ids[-1]}"
        if ids and (self.after is not None or (more and self.before is not None)):
            found["previous"] = f"before={ids[0]}"
        address = f"{request.url.scheme}://{request.url.netloc}{path}?limit={self.limit}"
        return ", ".join(f'<{address}&{cursor}>; rel="{relation}"' for relation, cursor in found.items())


def _asked_page(asked: QueryParams, name: Callable[[int], str]) -> _Page:
    limit = asked.get("limit", "10")
    if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit) <= _MOST):
        raise refused(f"Out of range value: {limit}. Please provide a number between 1 and {_MOST}.", "limit")
    if "after" in asked and "before" in asked:
        raise refused("Received both before and after parameters. Please provide only one.")
    cursors = {cursor: number_of(asked[cursor], name) for cursor in ("after", "before") if cursor in asked}
    for cursor, number in cursors.items():
        if number is None:
            raise refused(f"No such object: {asked[cursor]}", cursor)
    return _Page(int(limit), cursors.get("after"), cursors.get("before"))


def _between(
    asked: QueryParams, name: str, found: Iterable[Meeting], moment: Callable[[Meeting], datetime]
) -> Iterable[Meeting]:
    """Strictly, and by the milliseconds that records tell: a bound is moved once, rather than every meeting's time cut."""
    after, before = _instant(asked, f"{name}.gt"), _instant(asked, f"{name}.lt")
    if after and before and after > before:
        raise refused(f"{name}.gt cannot be later than {name}.lt", f"{name}.gt")
    if after:
        first = _whole(after) + _MILLISECOND
        found = [meeting for meeting in found if moment(meeting) >= first]
    if before:
        end = _whole(before) + (_MILLISECOND if before != _whole(before) else _NOTHING)
        found = [meeting for meeting in found if moment(meeting) < end]
    return found


def _whole(moment: datetime) -> datetime:
    """Cut to the millisecond."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _instant(asked: QueryParams, name: str) -> datetime | None:
    if name not in asked:
        return None
    try:
        given = datetime.fromisoformat(asked[name])
        given + _MILLISECOND
    except (ValueError, OverflowError):
        raise refused(f"Invalid date: {asked[name]}", name) from None
    return given if given.tzinfo else given.replace(tzinfo=UTC)


REST = OncehubRest
