"""Calendly's webhook subscriptions. https://developer.calendly.com/api-docs/calendly-api/webhooks"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from json import JSONDecodeError
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.api import Answered, answer
from ingest.simulator.calendly.pages import Place
from ingest.simulator.calendly.records import ORGANIZATION
from ingest.simulator.calendly.responses import (
    check_whose,
    error,
    invalid,
    listed,
    missing,
    one_of,
    required,
)
from ingest.simulator.calendly.webhooks import API, instant, user_uri
from ingest.simulator.dialect import Dialect
from ingest.simulator.subscriptions import Subscription, Subscriptions, are_words, is_url
from ingest.simulator.world import Meeting

_HAPPENING = ("created", "updated", "deleted")
_BOOKINGS = ("invitee.created", "invitee.canceled", "invitee_no_show.created", "invitee_no_show.deleted")
_FORM = "routing_form_submission.created"
_EVENTS = {
    *_BOOKINGS,
    _FORM,
    *(
        f"{family}.{happened}"
        for family in ("event_type", "contact", "meeting_recap")
        for happened in _HAPPENING
    ),
}
# Told by one scope alone.
_ONLY_SCOPES = {"routing_form_submission": "organization", "meeting_recap": "user"}
_SCOPES: Mapping[str | None, str] = {"organization": "organization", "user": "user", "group": "group"}
_FIELDS = {"url", "events", "organization", "scope", "user", "group", "signing_key"}
_ID = re.compile(r"WS(\d{14})")
_TRIED = timedelta(hours=24)


class CalendlySubscriptions(Subscriptions):
    """What the account's own webhook is, it is from the beginning.

    An OAuth app has one key, here that of the account, and `by_app` tells its requests. Whoever else gives no key gets
    webhooks signed with one that nobody tells. `is_admin`: whether the token's user may have some of the organization.
    """

    def __init__(self, dialect: Dialect, by_app: Callable[[Request], bool]) -> None:
        super().__init__()
        self.is_admin = True
        self._app_key = dialect.secret
        self._by_app = by_app
        self.add(dialect.url, _BOOKINGS, dialect.secret)

    def routes(self) -> Sequence[Route]:
        """There is none to change one."""
        return [
            Route("/webhook_subscriptions", self._list),
            Route("/webhook_subscriptions", self._create, methods=["POST"]),
            Route("/webhook_subscriptions/{uuid}", self._one),
            Route("/webhook_subscriptions/{uuid}", self._delete, methods=["DELETE"]),
        ]

    def hearing_of(self, meeting: Meeting | None, event: str) -> list[Subscription]:
        """Those of a user hear of that user's meetings, all others of everybody's."""
        return [
            kept
            for kept in self.hearing(event)
            if meeting is None or _user(kept) in {None, user_uri(meeting.host)}
        ]

    async def _list(self, request: Request) -> Response:
        required(request, "organization")
        scope = one_of(request, "scope", _SCOPES)
        whose = required(request, scope)
        self._check_whose(request.query_params)
        backwards = one_of(request, "sort", {None: False, "created_at:asc": False, "created_at:desc": True})
        found = [
            kept
            for kept in self.all()
            if _scope(kept) == scope and (scope == "organization" or kept.about[scope] == whose)
        ]
        ordered = found[::-1] if backwards else found
        return listed(request, ordered, _latest_first if backwards else _by_number, _told)

    async def _create(self, request: Request) -> Response:
        """The key is in no answer, this one's included."""
        given = await _body(request)
        if problems := _problems(given):
            raise Answered(invalid(**problems))
        self._check_whose(given)
        if any(kept.url == given["url"] for kept in self.all()):
            raise Answered(error(409, "Already Exists", "Hook with this url already exists"))
        about = {name: given[name] for name in ("scope", "user", "group") if name in given}
        key = self._app_key if self._by_app(request) else given.get("signing_key")
        added = self.add(given["url"], given["events"], key, **about)
        self.created += 1
        return answer({"resource": _told(added)}, 201, {"Location": _uri(added)})

    async def _one(self, request: Request) -> Response:
        return answer({"resource": _told(self._found(request))})

    async def _delete(self, request: Request) -> Response:
        self.remove(self._found(request).number)
        return Response(status_code=204)

    def _check_whose(self, asked: Mapping[str, str]) -> None:
        """https://developer.calendly.com/api-docs/overview/webhooks"""
        check_whose(asked, "organization", "user", "group")
        if asked["scope"] != "user" and not self.is_admin:
            raise Answered(
                error(403, "Permission Denied", "You do not have permission to access this resource.")
            )

    def _found(self, request: Request) -> Subscription:
        match = _ID.fullmatch(request.path_params["uuid"])
        found = self.find(int(match[1])) if match else None
        if found is None:
            raise Answered(missing())
        return found


async def _body(request: Request) -> dict[str, Any]:
    try:
        given = await request.json()
    except (JSONDecodeError, UnicodeDecodeError):
        given = None
    if not isinstance(given, dict):
        raise Answered(error(400, "Invalid Argument", "The request body must be a JSON object."))
    return given


def _problems(given: Mapping[str, Any]) -> dict[str, str]:
    """By field."""
    scope, events = given.get("scope"), given.get("events", [])
    problems = {name: "is unknown" for name in given if name not in _FIELDS}
    problems |= {
        name: "must be a string"
        for name in _FIELDS - {"events"}
        if name in given and not (isinstance(given[name], str) and given[name])
    }
    checks = {
        "url": (is_url(given.get("url")), "must be a URL"),
        "events": (are_words(events, _EVENTS), "must be a list of known events"),
        "scope": (scope in (*_SCOPES,), f"must be one of {', '.join(filter(None, _SCOPES))}"),
    }
    problems |= {name: message for name, (right, message) in checks.items() if not right}
    needed = {"url", "events", "organization", "scope"} | ({scope} if scope in ("user", "group") else set())
    problems |= {name: "is missing" for name in needed if name not in given}
    if "events" not in problems:
        problems |= _misplaced(events, scope)
    return problems


def _misplaced(events: Sequence[str], scope: object) -> dict[str, str]:
    """Events that another scope alone is told."""
    needs = [
        f"{event} needs the {only} scope"
        for event in events
        if (only := _ONLY_SCOPES.get(event.partition(".")[0], scope)) != scope
    ]
    return {"events": "; ".join(needs)} if needs else {}


def _told(kept: Subscription) -> dict[str, Any]:
    """`retry_started_at` is when the attempts began that led to its end."""
    disabled_at = kept.disabled_at
    return {
        "uri": _uri(kept),
        "callback_url": kept.url,
        "created_at": instant(kept.created_at),
        "updated_at": instant(disabled_at or kept.created_at),
        "retry_started_at": instant(disabled_at - _TRIED) if disabled_at else None,
        "state": "disabled" if disabled_at else "active",
        "events": list(kept.events),
        "scope": _scope(kept),
        "organization": ORGANIZATION,
        "user": kept.about.get("user"),
        "group": kept.about.get("group"),
        "creator": f"{API}/users/SUBSCRIBER",
    }


def _uri(kept: Subscription) -> str:
    return f"{API}/webhook_subscriptions/WS{kept.number:014d}"


def _scope(kept: Subscription) -> str:
    return str(kept.about.get("scope", "organization"))


def _user(kept: Subscription) -> Any:
    """Whose alone it is; None for everybody's. The only group is everybody."""
    return kept.about["user"] if _scope(kept) == "user" else None


def _by_number(kept: Subscription) -> Place:
    return 0.0, kept.number


def _latest_first(kept: Subscription) -> Place:
    return 0.0, -kept.number
