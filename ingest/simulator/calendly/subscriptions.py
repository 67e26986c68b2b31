"""Calendly's webhook subscriptions.

https://developer.calendly.com/api-docs/calendly-api/webhooks
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.account import SimulatedAccount
from ingest.simulator.api import ApiError, json_response, read_json_object
from ingest.simulator.calendly.records import ORGANIZATION
from ingest.simulator.calendly.responses import (
    check_owner,
    choice,
    error,
    invalid,
    list_response,
    not_found,
    permission_denied,
    required,
)
from ingest.simulator.calendly.webhooks import API, format_instant, user_uri
from ingest.simulator.subscriptions import Subscription, Subscriptions, is_list_of, is_webhook_url
from ingest.simulator.world import Meeting

_CHANGES = ("created", "updated", "deleted")
_BOOKINGS = ("invitee.created", "invitee.canceled", "invitee_no_show.created", "invitee_no_show.deleted")
_FORM = "routing_form_submission.created"
_EVENTS = {
    *_BOOKINGS,
    _FORM,
    *(f"{family}.{change}" for family in ("event_type", "contact", "meeting_recap") for change in _CHANGES),
}
# The events that only one scope gets, by family.
_ONLY_SCOPES = {"routing_form_submission": "organization", "meeting_recap": "user"}
_SCOPES: Mapping[str | None, str] = {"organization": "organization", "user": "user", "group": "group"}
_FIELDS = {"url", "events", "organization", "scope", "user", "group", "signing_key"}
_ID = re.compile(r"WS(\d{14})")
_RETRY_SPAN = timedelta(hours=24)


class CalendlySubscriptions(Subscriptions):
    """Starts with the account's own subscription.

    An OAuth app has one key, which is the account's; `is_from_app` recognises its requests. A subscription
    made otherwise and without a key is signed with a key that no response contains. `is_admin`: whether the
    token's user may subscribe to the whole organization.
    """

    def __init__(self, account: SimulatedAccount, is_from_app: Callable[[Request], bool]) -> None:
        super().__init__()
        self.is_admin = True
        self._app_key = account.secret
        self._is_from_app = is_from_app
        self.add(account.url, _BOOKINGS, account.secret)

    def routes(self) -> Sequence[Route]:
        """Return the endpoints; none changes a subscription."""
        return [
            Route("/webhook_subscriptions", self._list),
            Route("/webhook_subscriptions", self._create, methods=["POST"]),
            Route("/webhook_subscriptions/{uuid}", self._get),
            Route("/webhook_subscriptions/{uuid}", self._delete, methods=["DELETE"]),
        ]

    def active(self, event: str, meeting: Meeting | None = None) -> list[Subscription]:
        """Return the active subscriptions to the event; those of a user get only that user's meetings."""
        return [
            subscription
            for subscription in super().active(event)
            if meeting is None or _user(subscription) in {None, user_uri(meeting.host)}
        ]

    async def _list(self, request: Request) -> Response:
        required(request, "organization")
        scope = choice(request, "scope", _SCOPES)
        owner = required(request, scope)
        self._check_owner(request.query_params)
        sign = choice(request, "sort", {None: 1, "created_at:asc": 1, "created_at:desc": -1})
        subscriptions = [
            subscription
            for subscription in self.all()
            if _scope(subscription) == scope
            and (scope == "organization" or subscription.about[scope] == owner)
        ]
        return list_response(
            request, subscriptions[::sign], lambda subscription: (0.0, sign * subscription.number), _record
        )

    async def _create(self, request: Request) -> Response:
        """Create a subscription; no response contains its key, not even this one."""
        fields = await _read_fields(request)
        if problems := _problems(fields):
            raise ApiError(invalid(**problems))
        self._check_owner(fields)
        if any(subscription.url == fields["url"] for subscription in self.all()):
            raise ApiError(error(409, "Already Exists", "Hook with this url already exists"))
        about = {name: fields[name] for name in ("scope", "user", "group") if name in fields}
        key = self._app_key if self._is_from_app(request) else fields.get("signing_key")
        subscription = self.add(fields["url"], fields["events"], key, **about)
        self.created += 1
        return json_response({"resource": _record(subscription)}, 201, {"Location": _uri(subscription)})

    async def _get(self, request: Request) -> Response:
        return json_response({"resource": _record(self._requested(request))})

    async def _delete(self, request: Request) -> Response:
        self.remove(self._requested(request).number)
        return Response(status_code=204)

    def _check_owner(self, fields: Mapping[str, str]) -> None:
        """Check that the token's user may have subscriptions of this scope.

        https://developer.calendly.com/api-docs/overview/webhooks
        """
        check_owner(fields, "organization", "user", "group")
        if fields["scope"] != "user" and not self.is_admin:
            raise ApiError(permission_denied())

    def _requested(self, request: Request) -> Subscription:
        match = _ID.fullmatch(request.path_params["uuid"])
        subscription = self.find(int(match[1])) if match else None
        if subscription is None:
            raise ApiError(not_found())
        return subscription


async def _read_fields(request: Request) -> dict[str, Any]:
    fields = await read_json_object(request)
    if fields is None:
        raise ApiError(error(400, "Invalid Argument", "The request body must be a JSON object."))
    return fields


def _problems(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return the problems of a new subscription's fields, by field."""
    scope, events = fields.get("scope"), fields.get("events", [])
    problems = {name: "is unknown" for name in fields if name not in _FIELDS}
    problems |= {
        name: "must be a string"
        for name in _FIELDS - {"events"}
        if name in fields and not (isinstance(fields[name], str) and fields[name])
    }
    checks = {
        "url": (is_webhook_url(fields.get("url")), "must be a URL"),
        "events": (is_list_of(events, _EVENTS), "must be a list of known events"),
        "scope": (scope in (*_SCOPES,), f"must be one of {', '.join(filter(None, _SCOPES))}"),
    }
    problems |= {name: message for name, (is_valid, message) in checks.items() if not is_valid}
    needed = {"url", "events", "organization", "scope"} | ({scope} if scope in ("user", "group") else set())
    problems |= {name: "is missing" for name in needed if name not in fields}
    if "events" not in problems:
        problems |= _scope_problems(events, scope)
    return problems


def _scope_problems(events: Sequence[str], scope: object) -> dict[str, str]:
    """Return the problem of events that only another scope gets."""
    messages = [
        f"{event} needs the {only} scope"
        for event in events
        if (only := _ONLY_SCOPES.get(event.partition(".")[0], scope)) != scope
    ]
    return {"events": "; ".join(messages)} if messages else {}


def _record(subscription: Subscription) -> dict[str, Any]:
    """Return a subscription; `retry_started_at` is when the attempts began whose failure disabled it."""
    disabled_at = subscription.disabled_at
    return {
        "uri": _uri(subscription),
        "callback_url": subscription.url,
        "created_at": format_instant(subscription.created_at),
        "updated_at": format_instant(disabled_at or subscription.created_at),
        "retry_started_at": format_instant(disabled_at - _RETRY_SPAN) if disabled_at else None,
        "state": "disabled" if disabled_at else "active",
        "events": list(subscription.events),
        "scope": _scope(subscription),
        "organization": ORGANIZATION,
        "user": subscription.about.get("user"),
        "group": subscription.about.get("group"),
        "creator": f"{API}/users/SUBSCRIBER",
    }


def _uri(subscription: Subscription) -> str:
    return f"{API}/webhook_subscriptions/WS{subscription.number:014d}"


def _scope(subscription: Subscription) -> str:
    return str(subscription.about.get("scope", "organization"))


def _user(subscription: Subscription) -> Any:
    """Return the user whose meetings it gets; None for everybody's, as the only group has everybody."""
    return subscription.about["user"] if _scope(subscription) == "user" else None
