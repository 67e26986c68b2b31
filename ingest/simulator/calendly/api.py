"""Calendly's REST side. https://developer.calendly.com/api-docs/calendly-api

An event has one invitee here. A no-show moves the time of change of neither, and only the invitee tells of it.
"""

import math
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.api import Answered, Counter, RestDialect, answer, credential
from ingest.simulator.calendly.oauth import Tokens
from ingest.simulator.calendly.pages import Place, T
from ingest.simulator.calendly.records import (
    FORM,
    ORGANIZATION,
    OWNER,
    alone,
    contact,
    event,
    event_type,
    group,
    membership,
    routing_form,
    submission,
    user,
)
from ingest.simulator.calendly.responses import (
    check_whose,
    error,
    invalid,
    listed,
    missing,
    one_of,
    required,
)
from ingest.simulator.calendly.subscriptions import CalendlySubscriptions
from ingest.simulator.calendly.webhooks import ENDED, user_uri
from ingest.simulator.dialect import Dialect, Webhook
from ingest.simulator.subscriptions import Recipient
from ingest.simulator.world import Meeting, Person, Service

_EVENT = re.compile(r"EV(\d{14})")
_INVITEE = re.compile(r"IN(\d{14})")
_SUBMITTED = 3  # routing forms filled in


class CalendlyRest(RestDialect):
    """A personal access token that lasts, or an OAuth app's tokens that do not. The token is that of host 1, who owns the organization."""

    vendor = "calendly"
    base_path = ""

    def __init__(self, dialect: Dialect, meetings: Mapping[int, Meeting]) -> None:
        super().__init__(dialect, meetings)
        self.api_token = credential(dialect, "api_token")
        self.subscriptions = CalendlySubscriptions(dialect, self._by_app)
        self.tokens = Tokens(dialect, {"owner": user_uri(OWNER), "organization": ORGANIZATION})

    def settings(self) -> Mapping[str, Any]:
        return {"api_token": self.api_token}

    def oauth_settings(self) -> Mapping[str, Any]:
        """Instead of `settings`, an OAuth app's; the refresh token is the one that is good now."""
        return {
            "client_id": self.tokens.client_id,
            "client_secret": self.tokens.client_secret,
            "refresh_token": self.tokens.refresh_token,
        }

    def routes(self) -> Sequence[Route]:
        event = "/scheduled_events/{uuid}"
        return [
            Route("/oauth/token", self._token, methods=["POST"]),
            Route("/users/me", self._me),
            Route("/scheduled_events", self._scheduled_events),
            Route(event, self._scheduled_event),
            Route(f"{event}/invitees", self._invitees),
            Route(f"{event}/invitees/{{invitee_uuid}}", self._invitee),
            Route("/organization_memberships", self._organization_memberships),
            Route("/event_types", self._event_types),
            Route("/groups", self._groups),
            Route("/contacts", self._contacts),
            Route("/routing_forms", self._routing_forms),
            Route("/routing_form_submissions", self._routing_form_submissions),
            *self.subscriptions.routes(),
        ]

    def authentic(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme == "Bearer" and (token == self.api_token or self.tokens.are_good(token))

    def _by_app(self, request: Request) -> bool:
        return request.headers["authorization"] != f"Bearer {self.api_token}"

    def is_open(self, request: Request) -> bool:
        return request.method == "POST" and request.url.path.endswith("/oauth/token")

    def unauthorized(self) -> Response:
        return error(401, "Unauthenticated", "The access token is invalid, expired or revoked")

    def too_many(self, seconds: float) -> Response:
        """No Retry-After. https://developer.calendly.com/api-docs/overview/rate-limits"""
        wait = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(math.ceil(seconds))}
        return error(429, "Too Many Requests", "You have exceeded the limit of requests", headers=wait)

    def missing(self) -> Response:
        return missing()

    def headers(self, counter: Counter) -> Mapping[str, str]:
        request_id = {"X-Request-Id": str(uuid.uuid4())}
        if counter.allowed is None:
            return request_id
        told = {
            "Limit": counter.allowed.requests,
            "Remaining": counter.left,
            "Reset": math.ceil(counter.reset),
        }
        return request_id | {f"X-RateLimit-{name}": str(value) for name, value in told.items()}

    def event_of(self, webhook: Webhook) -> str:
        return str(orjson.loads(webhook.body)["event"])

    def recipients(self, event: str, meeting: Meeting | None = None) -> list[Recipient]:
        return [kept.recipient for kept in self.subscriptions.hearing_of(meeting, event)]

    async def _token(self, request: Request) -> Response:
        return self.tokens.answer_to(await request.body(), self.too_many)

    async def _me(self, _: Request) -> Response:
        return answer(
            {"resource": user(self._hosts()[OWNER.number]) | {"current_organization": ORGANIZATION}}
        )

    async def _scheduled_events(self, request: Request) -> Response:
        """Starts are after `min_start_time` and before `max_start_time`; nothing here filters by time of change."""
        check_whose(request.query_params, "organization", "user", "group")
        backwards = one_of(request, "sort", {None: False, "start_time:asc": False, "start_time:desc": True})
        found = sorted(self._wanted(request), key=attrgetter("starts_at"), reverse=backwards)
        return listed(request, found, _by_start_backwards if backwards else _by_start, event)

    async def _scheduled_event(self, request: Request) -> Response:
        return answer({"resource": event(self._meeting(request))})

    async def _invitees(self, request: Request) -> Response:
        meeting, email = self._meeting(request), request.query_params.get("email")
        one_of(request, "sort", dict.fromkeys((None, "created_at:asc", "created_at:desc")))
        there = email in {None, meeting.customer.email} and (meeting.last in ENDED) in _ended(request)
        return listed(request, [meeting] if there else [], _by_number, alone)

    async def _invitee(self, request: Request) -> Response:
        meeting, found = self._meeting(request), _INVITEE.fullmatch(request.path_params["invitee_uuid"])
        if not found or int(found[1]) != meeting.number:
            raise Answered(missing())
        return answer({"resource": alone(meeting)})

    async def _organization_memberships(self, request: Request) -> Response:
        check_whose(request.query_params, "organization", "user")
        wanted = request.query_params.get("user")
        hosts = [host for host in _numbered(self._hosts()) if wanted in {None, user_uri(host)}]
        return listed(request, hosts, _by_number, membership)

    async def _event_types(self, request: Request) -> Response:
        check_whose(request.query_params, "organization", "user")
        active = one_of(request, "active", {None: True, "true": True, "false": False})
        services = {meeting.service.number: meeting.service for meeting in self._all()}
        return listed(request, _numbered(services) if active else [], _by_number, event_type)

    async def _groups(self, request: Request) -> Response:
        check_whose(request.query_params, "organization")
        return listed(request, [len(self._hosts())], _only, group)

    async def _contacts(self, request: Request) -> Response:
        first: dict[int, Meeting] = {}
        for meeting in self._all():
            first.setdefault(meeting.customer.number, meeting)
        return listed(request, _numbered(first), lambda meeting: (0.0, meeting.customer.number), contact)

    async def _routing_forms(self, request: Request) -> Response:
        check_whose(request.query_params, "organization")
        return listed(request, [routing_form()], _only, dict)

    async def _routing_form_submissions(self, request: Request) -> Response:
        if required(request, "form") != FORM:
            raise Answered(missing())
        return listed(request, self._all()[:_SUBMITTED], _by_number, submission)

    def _all(self) -> list[Meeting]:
        """In the order of their numbers, copied at once: the world may go on in another thread."""
        return list(self.meetings.values())

    def _hosts(self) -> dict[int, Person]:
        return {OWNER.number: OWNER} | {meeting.host.number: meeting.host for meeting in self._all()}

    def _meeting(self, request: Request) -> Meeting:
        found = _EVENT.fullmatch(request.path_params["uuid"])
        meeting = self.meetings.get(int(found[1])) if found else None
        if meeting is None:
            raise Answered(missing())
        return meeting

    def _wanted(self, request: Request) -> list[Meeting]:
        since, until, ended = (
            _moment(request, "min_start_time"),
            _moment(request, "max_start_time"),
            _ended(request),
        )
        whose, email = request.query_params.get("user"), request.query_params.get("invitee_email")
        return [
            meeting
            for meeting in self._all()
            if (since is None or meeting.starts_at > since)
            and (until is None or meeting.starts_at < until)
            and (meeting.last in ENDED) in ended
            and (whose is None or whose == user_uri(meeting.host))
            and (email is None or email == meeting.customer.email)
        ]


def _ended(request: Request) -> set[bool]:
    """Which a status lets through."""
    found: set[bool] = one_of(request, "status", {None: {True, False}, "active": {False}, "canceled": {True}})
    return found


def _moment(request: Request, parameter: str) -> datetime | None:
    given = request.query_params.get(parameter)
    try:
        found = datetime.fromisoformat(given) if given is not None else None
    except ValueError:
        raise Answered(invalid(**{parameter: "must be a time in UTC"})) from None
    return found.replace(tzinfo=found.tzinfo or UTC) if found else None


def _numbered(things: Mapping[int, T]) -> list[T]:
    return [thing for _, thing in sorted(things.items())]


def _by_start(meeting: Meeting) -> Place:
    return meeting.starts_at.timestamp(), meeting.number


def _by_start_backwards(meeting: Meeting) -> Place:
    return -meeting.starts_at.timestamp(), meeting.number


def _by_number(thing: Meeting | Person | Service) -> Place:
    return 0.0, thing.number


def _only(_: object) -> Place:
    return 0.0, 0


REST = CalendlyRest
