"""Calendly's REST API.

https://developer.calendly.com/api-docs/calendly-api
"""

import math
import re
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.account import SimulatedAccount, Webhook
from ingest.simulator.api import (
    ApiError,
    RateLimiter,
    Recipient,
    SimulatedApi,
    derive_credential,
    json_response,
    read_instant,
)
from ingest.simulator.calendly import records
from ingest.simulator.calendly.records import (
    ENDED,
    FORM,
    ORGANIZATION,
    OWNER,
    check_owner,
    error,
    invalid,
    not_found,
    user_uri,
)
from ingest.simulator.calendly.subscriptions import (
    SCOPES,
    CalendlySubscriptions,
    OAuthTokens,
    scope_of,
)
from ingest.simulator.world import Meeting, Person

T = TypeVar("T")
SortKey = tuple[float, int]

_EVENT = re.compile(r"EV(\d{14})")
_INVITEE = re.compile(r"IN(\d{14})")
_SUBMISSIONS = 3  # of the routing form
_DEFAULT_COUNT, _MAXIMUM_COUNT = 20, 100
_BEGINNING: SortKey = (-1e18, 0)


class CalendlyApi(SimulatedApi):
    """The API of one account, opened by a personal access token or by an OAuth app's tokens, which expire.

    The token is that of host 1, who owns the organization.
    """

    base_path = ""

    def __init__(self, account: SimulatedAccount, meetings: Mapping[int, Meeting]) -> None:
        super().__init__(account, meetings)
        self.api_token = derive_credential(account, "api_token")
        self.subscriptions: CalendlySubscriptions = CalendlySubscriptions(
            account, lambda request: request.headers["authorization"] != f"Bearer {self.api_token}"
        )
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
            Route("/oauth/token", self.create_token, methods=["POST"]),
            Route("/users/me", self.get_me),
            Route("/scheduled_events", self.list_events),
            Route(event, self.get_event),
            Route(f"{event}/invitees", self.list_invitees),
            Route(f"{event}/invitees/{{invitee_uuid}}", self.get_invitee),
            Route("/organization_memberships", self.list_memberships),
            Route("/event_types", self.list_event_types),
            Route("/groups", self.list_groups),
            Route("/contacts", self.list_contacts),
            Route("/routing_forms", self.list_routing_forms),
            Route("/routing_form_submissions", self.list_submissions),
            Route("/webhook_subscriptions", self.list_subscriptions),
            *self.subscriptions.routes(),
        ]

    def is_authentic(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme == "Bearer" and (token == self.api_token or self.tokens.is_valid(token))

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

    async def create_token(self, request: Request) -> Response:
        return self.tokens.respond(await request.body(), self.too_many)

    async def get_me(self, _: Request) -> Response:
        owner = records.user(self._hosts()[OWNER.number])
        return json_response({"resource": owner | {"current_organization": ORGANIZATION}})

    async def list_events(self, request: Request) -> Response:
        """List events by start, which excludes the bounds; there is no filter by time of change."""

        def invalid_time(parameter: str) -> ApiError:
            return ApiError(invalid(**{parameter: "must be a time in UTC"}))

        query = request.query_params
        check_owner(query, *SCOPES)
        sign = _choice(request, "sort", {None: 1, "start_time:asc": 1, "start_time:desc": -1})
        since, until = (read_instant(query, f"{bound}_start_time", invalid_time) for bound in ("min", "max"))
        canceled, uri, email = _canceled(request), query.get("user"), query.get("invitee_email")
        meetings = [
            meeting
            for meeting in self.copy_meetings().values()
            if (since is None or meeting.starts_at > since)
            and (until is None or meeting.starts_at < until)
            and (meeting.last_change in ENDED) in canceled
            and uri in {None, user_uri(meeting.host)}
            and email in {None, meeting.customer.email}
        ]

        def sort_key(meeting: Meeting) -> SortKey:
            return sign * meeting.starts_at.timestamp(), meeting.number

        return _list(request, sorted(meetings, key=sort_key), records.event, sort_key)

    async def get_event(self, request: Request) -> Response:
        return json_response({"resource": records.event(self._meeting(request))})

    async def list_invitees(self, request: Request) -> Response:
        meeting, email = self._meeting(request), request.query_params.get("email")
        _choice(request, "sort", dict.fromkeys((None, "created_at:asc", "created_at:desc")))
        has_status = (meeting.last_change in ENDED) in _canceled(request)
        matches = has_status and email in {None, meeting.customer.email}
        return _list(request, [meeting] if matches else [], records.invitee_record)

    async def get_invitee(self, request: Request) -> Response:
        meeting, match = self._meeting(request), _INVITEE.fullmatch(request.path_params["invitee_uuid"])
        if not match or int(match[1]) != meeting.number:
            raise ApiError(not_found())
        return json_response({"resource": records.invitee_record(meeting)})

    async def list_memberships(self, request: Request) -> Response:
        check_owner(request.query_params, "organization", "user")
        uri, hosts = request.query_params.get("user"), self._hosts().values()
        return _list(request, [host for host in hosts if uri in {None, user_uri(host)}], records.membership)

    async def list_event_types(self, request: Request) -> Response:
        check_owner(request.query_params, "organization", "user")
        active = _choice(request, "active", {None: True, "true": True, "false": False})
        services = {meeting.service.number: meeting.service for meeting in self.copy_meetings().values()}
        return _list(request, _in_order(services) if active else [], records.event_type)

    async def list_groups(self, request: Request) -> Response:
        """List the only group, of which everybody is a member."""
        check_owner(request.query_params, "organization")
        return _list(request, [len(self._hosts())], records.group, lambda _: (0.0, 0))

    async def list_contacts(self, request: Request) -> Response:
        first: dict[int, Meeting] = {}
        for meeting in self.copy_meetings().values():
            first.setdefault(meeting.customer.number, meeting)
        return _list(
            request, _in_order(first), records.contact, lambda meeting: (0.0, meeting.customer.number)
        )

    async def list_routing_forms(self, request: Request) -> Response:
        check_owner(request.query_params, "organization")
        return _list(request, [records.routing_form()], dict, lambda _: (0.0, 0))

    async def list_submissions(self, request: Request) -> Response:
        if _required(request, "form") != FORM:
            raise ApiError(not_found())
        return _list(request, [*self.copy_meetings().values()][:_SUBMISSIONS], records.submission)

    async def list_subscriptions(self, request: Request) -> Response:
        _required(request, "organization")
        scope: str = _choice(request, "scope", {scope: scope for scope in SCOPES})
        owner = _required(request, scope)
        self.subscriptions.check_permission(request.query_params)
        sign = _choice(request, "sort", {None: 1, "created_at:asc": 1, "created_at:desc": -1})
        subscriptions = [
            subscription
            for subscription in self.subscriptions.all()
            if scope_of(subscription) == scope
            and (scope == "organization" or subscription.about[scope] == owner)
        ]
        return _list(
            request,
            subscriptions[::sign],
            self.subscriptions.record,
            lambda subscription: (0.0, sign * subscription.number),
        )

    def _hosts(self) -> dict[int, Person]:
        """Return the hosts by number, in this order."""
        hosts = {OWNER.number: OWNER}
        hosts |= {meeting.host.number: meeting.host for meeting in self.copy_meetings().values()}
        return dict(sorted(hosts.items()))

    def _meeting(self, request: Request) -> Meeting:
        match = _EVENT.fullmatch(request.path_params["uuid"])
        meeting = self.meetings.get(int(match[1])) if match else None
        if meeting is None:
            raise ApiError(not_found())
        return meeting


def _list(
    request: Request,
    entries: Sequence[T],
    make_record: Callable[[T], Mapping[str, Any]],
    sort_key: Callable[[Any], SortKey] = lambda entry: (0.0, entry.number),
) -> Response:
    """Return the requested page of the entries, which are in the order of their sort keys.

    A token holds the key after which its page begins, so entries deleted meanwhile neither hide nor repeat
    others. It is valid only with the filters it was made for.
    https://developer.calendly.com/api-docs/overview/pagination
    """
    query = request.query_params
    count = query.get("count", str(_DEFAULT_COUNT))
    if not count.isdecimal() or not 1 <= int(count) <= _MAXIMUM_COUNT:
        raise ApiError(invalid(count=f"must be a number from 1 to {_MAXIMUM_COUNT}"))
    filters = sorted(
        (name, value) for name, value in query.multi_items() if name not in {"page_token", "count"}
    )
    digest = sha256(orjson.dumps([request.url.path, filters])).hexdigest()[:16]
    start = bisect_right(entries, _start_key(query.get("page_token"), digest), key=sort_key)
    end, before = start + int(count), max(0, start - int(count))
    page, tokens = entries[start:end], dict[str, str | None](next=None, previous=None)
    if end < len(entries):
        tokens["next"] = _token(digest, sort_key(entries[end - 1]))
    if start:
        tokens["previous"] = _token(digest, sort_key(entries[before - 1]) if before else _BEGINNING)
    pagination: dict[str, Any] = {"count": len(page)}
    for name, token in tokens.items():
        pagination[f"{name}_page"] = token and str(request.url.include_query_params(page_token=token))
    pagination |= {f"{name}_page_token": token for name, token in tokens.items()}
    return json_response({"collection": [make_record(entry) for entry in page], "pagination": pagination})


def _start_key(token: str | None, digest: str) -> SortKey:
    """Return the key in a page token, which must be that of a list with these filters."""
    if token is None:
        return _BEGINNING
    try:
        filters, moment, number = orjson.loads(urlsafe_b64decode(token))
    except (ValueError, TypeError):
        filters = None
    if filters != digest:
        raise ApiError(invalid(page_token="is not a token of this list"))  # noqa: S106 - a message
    return moment, number


def _token(digest: str, key: SortKey) -> str:
    return urlsafe_b64encode(orjson.dumps([digest, *key])).decode()


def _choice(request: Request, parameter: str, values: Mapping[str | None, Any]) -> Any:
    """Return what the parameter's value stands for; the key None is for a request without the parameter."""
    value = request.query_params.get(parameter)
    if value not in values:
        raise ApiError(invalid(**{parameter: f"must be one of {', '.join(filter(None, values))}"}))
    return values[value]


def _required(request: Request, parameter: str) -> str:
    """Return the parameter's value."""
    if parameter not in request.query_params:
        raise ApiError(invalid(**{parameter: "is missing"}))
    return request.query_params[parameter]


def _canceled(request: Request) -> set[bool]:
    """Return which of canceled and active meetings the requested status includes."""
    values: set[bool] = _choice(
        request, "status", {None: {True, False}, "active": {False}, "canceled": {True}}
    )
    return values


def _in_order(entries: Mapping[int, T]) -> list[T]:
    return [entry for _, entry in sorted(entries.items())]
