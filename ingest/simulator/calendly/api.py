"""Calendly's REST API.

https://developer.calendly.com/api-docs/calendly-api

Every event has one invitee. A no-show changes the invitee only, and the time of change of neither.
"""

import math
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.account import SimulatedAccount, Webhook
from ingest.simulator.api import ApiError, RateLimiter, SimulatedApi, derive_credential, json_response
from ingest.simulator.calendly.oauth import OAuthTokens
from ingest.simulator.calendly.records import (
    FORM,
    ORGANIZATION,
    OWNER,
    contact,
    event,
    event_type,
    group,
    invitee_record,
    membership,
    routing_form,
    submission,
    user,
)
from ingest.simulator.calendly.responses import (
    SortKey,
    T,
    check_owner,
    choice,
    error,
    invalid,
    list_response,
    not_found,
    required,
)
from ingest.simulator.calendly.subscriptions import CalendlySubscriptions
from ingest.simulator.calendly.webhooks import ENDED, user_uri
from ingest.simulator.subscriptions import Recipient
from ingest.simulator.world import Meeting, Person, Service

_EVENT = re.compile(r"EV(\d{14})")
_INVITEE = re.compile(r"IN(\d{14})")
_SUBMISSIONS = 3  # of the routing form


class CalendlyApi(SimulatedApi):
    """The API of one account, opened by a personal access token or by an OAuth app's tokens, which expire.

    The token is that of host 1, who owns the organization.
    """

    base_path = ""

    def __init__(self, account: SimulatedAccount, meetings: Mapping[int, Meeting]) -> None:
        super().__init__(account, meetings)
        self.api_token = derive_credential(account, "api_token")
        self.subscriptions = CalendlySubscriptions(account, self._is_from_app)
        self.tokens = OAuthTokens(account, {"owner": user_uri(OWNER), "organization": ORGANIZATION})

    def settings(self) -> Mapping[str, Any]:
        return {"api_token": self.api_token}

    def oauth_settings(self) -> Mapping[str, Any]:
        """Return the credentials of an OAuth app, in place of `settings`, with the valid refresh token."""
        return {
            "client_id": self.tokens.client_id,
            "client_secret": self.tokens.client_secret,
            "refresh_token": self.tokens.refresh_token,
        }

    def auth_headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.api_token}"}

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

    def is_authentic(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme == "Bearer" and (token == self.api_token or self.tokens.is_valid(token))

    def _is_from_app(self, request: Request) -> bool:
        return request.headers["authorization"] != f"Bearer {self.api_token}"

    def is_public(self, request: Request) -> bool:
        return request.method == "POST" and request.url.path.endswith("/oauth/token")

    def unauthorized(self) -> Response:
        return error(401, "Unauthenticated", "The access token is invalid, expired or revoked")

    def too_many(self, seconds: float) -> Response:
        """Return an error without Retry-After.

        https://developer.calendly.com/api-docs/overview/rate-limits
        """
        headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(math.ceil(seconds))}
        return error(429, "Too Many Requests", "You have exceeded the limit of requests", headers=headers)

    def not_found(self) -> Response:
        return not_found()

    def headers(self, limiter: RateLimiter) -> Mapping[str, str]:
        request_id = {"X-Request-Id": str(uuid.uuid4())}
        if limiter.limit is None:
            return request_id
        return request_id | {
            "X-RateLimit-Limit": str(limiter.limit.requests),
            "X-RateLimit-Remaining": str(limiter.remaining),
            "X-RateLimit-Reset": str(math.ceil(limiter.reset)),
        }

    def event_of(self, webhook: Webhook) -> str:
        return str(orjson.loads(webhook.body)["event"])

    def recipients(self, event: str, meeting: Meeting | None = None) -> list[Recipient]:
        return [subscription.recipient for subscription in self.subscriptions.active(event, meeting)]

    async def _token(self, request: Request) -> Response:
        return self.tokens.respond(await request.body(), self.too_many)

    async def _me(self, _: Request) -> Response:
        owner = user(self._hosts()[OWNER.number])
        return json_response({"resource": owner | {"current_organization": ORGANIZATION}})

    async def _scheduled_events(self, request: Request) -> Response:
        """List events by start, which excludes the bounds; there is no filter by time of change."""
        check_owner(request.query_params, "organization", "user", "group")
        sign = choice(request, "sort", {None: 1, "start_time:asc": 1, "start_time:desc": -1})

        def sort_key(meeting: Meeting) -> SortKey:
            return sign * meeting.starts_at.timestamp(), meeting.number

        return list_response(request, sorted(self._filtered(request), key=sort_key), sort_key, event)

    async def _scheduled_event(self, request: Request) -> Response:
        return json_response({"resource": event(self._meeting(request))})

    async def _invitees(self, request: Request) -> Response:
        meeting, email = self._meeting(request), request.query_params.get("email")
        choice(request, "sort", dict.fromkeys((None, "created_at:asc", "created_at:desc")))
        matches = email in {None, meeting.customer.email} and _is_canceled(meeting) in _canceled(request)
        return list_response(request, [meeting] if matches else [], _by_number, invitee_record)

    async def _invitee(self, request: Request) -> Response:
        meeting, match = self._meeting(request), _INVITEE.fullmatch(request.path_params["invitee_uuid"])
        if not match or int(match[1]) != meeting.number:
            raise ApiError(not_found())
        return json_response({"resource": invitee_record(meeting)})

    async def _organization_memberships(self, request: Request) -> Response:
        check_owner(request.query_params, "organization", "user")
        uri = request.query_params.get("user")
        hosts = [host for host in _in_order(self._hosts()) if uri in {None, user_uri(host)}]
        return list_response(request, hosts, _by_number, membership)

    async def _event_types(self, request: Request) -> Response:
        check_owner(request.query_params, "organization", "user")
        active = choice(request, "active", {None: True, "true": True, "false": False})
        services = {meeting.service.number: meeting.service for meeting in self._all_meetings()}
        return list_response(request, _in_order(services) if active else [], _by_number, event_type)

    async def _groups(self, request: Request) -> Response:
        check_owner(request.query_params, "organization")
        return list_response(request, [len(self._hosts())], _single, group)

    async def _contacts(self, request: Request) -> Response:
        first: dict[int, Meeting] = {}
        for meeting in self._all_meetings():
            first.setdefault(meeting.customer.number, meeting)
        return list_response(
            request, _in_order(first), lambda meeting: (0.0, meeting.customer.number), contact
        )

    async def _routing_forms(self, request: Request) -> Response:
        check_owner(request.query_params, "organization")
        return list_response(request, [routing_form()], _single, dict)

    async def _routing_form_submissions(self, request: Request) -> Response:
        if required(request, "form") != FORM:
            raise ApiError(not_found())
        return list_response(request, self._all_meetings()[:_SUBMISSIONS], _by_number, submission)

    def _all_meetings(self) -> list[Meeting]:
        """Return a copy, in order of the numbers, because another thread may change the world."""
        return list(self.meetings.values())

    def _hosts(self) -> dict[int, Person]:
        return {OWNER.number: OWNER} | {meeting.host.number: meeting.host for meeting in self._all_meetings()}

    def _meeting(self, request: Request) -> Meeting:
        match = _EVENT.fullmatch(request.path_params["uuid"])
        meeting = self.meetings.get(int(match[1])) if match else None
        if meeting is None:
            raise ApiError(not_found())
        return meeting

    def _filtered(self, request: Request) -> list[Meeting]:
        since, until = _instant(request, "min_start_time"), _instant(request, "max_start_time")
        canceled = _canceled(request)
        uri, email = request.query_params.get("user"), request.query_params.get("invitee_email")
        return [
            meeting
            for meeting in self._all_meetings()
            if (since is None or meeting.starts_at > since)
            and (until is None or meeting.starts_at < until)
            and _is_canceled(meeting) in canceled
            and uri in {None, user_uri(meeting.host)}
            and email in {None, meeting.customer.email}
        ]


def _is_canceled(meeting: Meeting) -> bool:
    return meeting.last_change in ENDED


def _canceled(request: Request) -> set[bool]:
    """Return the values of `_is_canceled` that the requested status includes."""
    values: set[bool] = choice(
        request, "status", {None: {True, False}, "active": {False}, "canceled": {True}}
    )
    return values


def _instant(request: Request, parameter: str) -> datetime | None:
    value = request.query_params.get(parameter)
    try:
        instant = datetime.fromisoformat(value) if value is not None else None
    except ValueError:
        raise ApiError(invalid(**{parameter: "must be a time in UTC"})) from None
    return instant.replace(tzinfo=instant.tzinfo or UTC) if instant else None


def _in_order(entries: Mapping[int, T]) -> list[T]:
    return [entry for _, entry in sorted(entries.items())]


def _by_number(entry: Meeting | Person | Service) -> SortKey:
    return 0.0, entry.number


def _single(_: object) -> SortKey:
    return 0.0, 0
