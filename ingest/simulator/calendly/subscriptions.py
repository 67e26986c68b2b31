"""Webhook subscriptions and OAuth tokens, which clients of Calendly's REST API create.

https://developer.calendly.com/api-docs/calendly-api/webhooks
"""

import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from ingest.simulator.account import SimulatedAccount
from ingest.simulator.api import (
    ApiError,
    RateLimit,
    RateLimiter,
    Subscription,
    Subscriptions,
    derive_credential,
    is_list_of,
    is_webhook_url,
    json_response,
    read_json_object,
)
from ingest.simulator.calendly.records import (
    API,
    ORGANIZATION,
    check_owner,
    error,
    format_instant,
    invalid,
    not_found,
    permission_denied,
    user_uri,
)
from ingest.simulator.world import Meeting

SCOPES = ("organization", "user", "group")
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
_FIELDS = {"url", "events", "signing_key", "scope", *SCOPES}
_RETRY_SPAN = timedelta(hours=24)


class CalendlySubscriptions(Subscriptions):
    """Starts with the account's own subscription.

    An OAuth app has one key, which is the account's; `is_from_app` recognises its requests. A subscription
    made otherwise and without a key is signed with a key that no response contains. `is_admin`: whether the
    token's user may subscribe to the whole organization.
    """

    path: ClassVar[str] = "/webhook_subscriptions"
    id_name: ClassVar[str] = "uuid"

    def __init__(self, account: SimulatedAccount, is_from_app: Callable[[Request], bool]) -> None:
        super().__init__()
        self.is_admin = True
        self._app_key = account.secret
        self._is_from_app = is_from_app
        self.add(account.url, _BOOKINGS, account.secret)

    def make_id(self, number: int) -> str:
        return f"WS{number:014d}"

    def missing(self, id_: str) -> ApiError:
        return ApiError(not_found())

    def fields_for(self, url: str) -> Mapping[str, Any]:
        return {"url": url, "events": _BOOKINGS, "organization": ORGANIZATION, "scope": "organization"}

    def active(self, event: str, meeting: Meeting | None = None) -> list[Subscription]:
        """Return the active subscriptions to the event; those of a user get only that user's meetings.

        The only group has everybody, so its subscriptions get all meetings.
        """
        return [
            subscription
            for subscription in super().active(event)
            if meeting is None
            or scope_of(subscription) != "user"
            or subscription.about["user"] == user_uri(meeting.host)
        ]

    def check_permission(self, fields: Mapping[str, str]) -> None:
        """Check that the token's user may have subscriptions of this scope.

        https://developer.calendly.com/api-docs/overview/webhooks
        """
        check_owner(fields, *SCOPES)
        if fields["scope"] != "user" and not self.is_admin:
            raise ApiError(permission_denied())

    async def create(self, request: Request) -> Response:
        """Create a subscription; no response contains its key, not even this one."""
        fields = await read_json_object(request)
        if fields is None:
            raise ApiError(error(400, "Invalid Argument", "The request body must be a JSON object."))
        if problems := _problems(fields):
            raise ApiError(invalid(**problems))
        self.check_permission(fields)
        if any(subscription.url == fields["url"] for subscription in self.all()):
            raise ApiError(error(409, "Already Exists", "Hook with this url already exists"))
        about = {name: fields[name] for name in ("scope", "user", "group") if name in fields}
        key = self._app_key if self._is_from_app(request) else fields.get("signing_key")
        subscription = self.add(fields["url"], fields["events"], key, **about)
        self.created += 1
        record = self.record(subscription)
        return json_response({"resource": record}, 201, {"Location": record["uri"]})

    async def get(self, request: Request) -> Response:
        return json_response({"resource": self.record(self.requested(request))})

    def record(self, subscription: Subscription) -> dict[str, Any]:
        """Return a subscription; `retry_started_at` is when the attempts began whose failure disabled it."""
        disabled_at = subscription.disabled_at
        return {
            "uri": f"{API}{self.path}/{self.make_id(subscription.number)}",
            "callback_url": subscription.url,
            "created_at": format_instant(subscription.created_at),
            "updated_at": format_instant(disabled_at or subscription.created_at),
            "retry_started_at": format_instant(disabled_at - _RETRY_SPAN) if disabled_at else None,
            "state": "disabled" if disabled_at else "active",
            "events": list(subscription.events),
            "scope": scope_of(subscription),
            "organization": ORGANIZATION,
            "user": subscription.about.get("user"),
            "group": subscription.about.get("group"),
            "creator": f"{API}/users/SUBSCRIBER",
        }


def scope_of(subscription: Subscription) -> str:
    """Return the scope of a subscription."""
    return str(subscription.about.get("scope", "organization"))


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
        "scope": (scope in SCOPES, f"must be one of {', '.join(SCOPES)}"),
    }
    problems |= {name: message for name, (is_valid, message) in checks.items() if not is_valid}
    needed = {"url", "events", "organization", "scope"} | ({scope} if scope in ("user", "group") else set())
    problems |= {name: "is missing" for name in needed if name not in fields}
    if "events" not in problems:
        only_scopes = {event: _ONLY_SCOPES.get(event.partition(".")[0], scope) for event in events}
        if wrong := [
            f"{event} needs the {only} scope" for event, only in only_scopes.items() if only != scope
        ]:
            problems["events"] = "; ".join(wrong)
    return problems


class OAuthTokens:
    """The tokens of an OAuth app for one account: a refresh token can be used once.

    https://developer.calendly.com/docs/authentication/refresh-token-rotation-guide

    `seconds` is the lifetime of access tokens, including those issued before it was set. `limiter` counts the
    requests for tokens. https://developer.calendly.com/api-docs/overview/rate-limits
    """

    def __init__(self, account: SimulatedAccount, owner: Mapping[str, str]) -> None:
        self.client_id = derive_credential(account, "client_id")
        self.client_secret = derive_credential(account, "client_secret")
        self.refresh_token = derive_credential(account, "refresh_token")
        self.seconds = 7200.0
        self.limiter = RateLimiter(RateLimit(8, 60))
        self._owner = owner
        self._issued_at: dict[str, float] = {}

    def is_valid(self, access_token: str) -> bool:
        """Say whether the token was issued here and has not expired."""
        issued_at = self._issued_at.get(access_token)
        return issued_at is not None and time.monotonic() < issued_at + self.seconds

    def expire(self) -> None:
        """Expire all access tokens issued so far."""
        self._issued_at.clear()

    def respond(self, form: bytes, too_many: Callable[[float], Response]) -> Response:
        """Return the token endpoint's response to a form."""
        if (seconds := self.limiter.take()) is not None:
            return too_many(seconds)
        fields = {name: values[0] for name, values in parse_qs(form.decode("utf-8", "replace")).items()}
        if (fields.get("client_id"), fields.get("client_secret")) != (self.client_id, self.client_secret):
            return _oauth_error(401, "invalid_client", "Client authentication failed")
        if fields.get("grant_type") != "refresh_token":
            message = "The authorization grant type is not supported"
            return _oauth_error(400, "unsupported_grant_type", message)
        if fields.get("refresh_token") != self.refresh_token:
            return _oauth_error(400, "invalid_grant", "The refresh token is invalid, expired or revoked")
        access_token, self.refresh_token = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self._issued_at[access_token] = time.monotonic()
        body = {
            "token_type": "Bearer",
            "access_token": access_token,
            "refresh_token": self.refresh_token,
            "scope": "scheduled_events:read",
            "created_at": format_instant(datetime.now(UTC)),
            "expires_in": int(self.seconds),
            **self._owner,
        }
        return json_response(body)


def _oauth_error(status: int, error: str, description: str) -> Response:
    return json_response({"error": error, "error_description": description}, status)
