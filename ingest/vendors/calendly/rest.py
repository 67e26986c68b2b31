"""Calendly's REST side. https://developer.calendly.com/api-docs

There is no filter by time of change. So events are swept by their start, into the future, and the invitees of an event are
read only where the event shows that one of them differs, or cannot show it: a no-show moves nothing in its event.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from dlt.sources.helpers.rest_client.paginators import BasePaginator, JSONResponseCursorPaginator
from dlt.sources.rest_api.typing import EndpointResource
from requests import Response

from ingest.booking import BookingStatus, StoredBooking
from ingest.errors import PayloadError
from ingest.instant import format_instant
from ingest.rest import Credential, Limits, Rate, Record
from ingest.rest.oauth import App, RotatingTokens
from ingest.vendors.calendly import CalendlySettings
from ingest.vendors.calendly.booking import ScheduledEvent
from ingest.vendors.fields import ABSENT, OBJECT, Payload, Word, read_value
from ingest.vendors.rest import Rest, Window, json_object

_TOKENS = "https://auth.calendly.com/oauth/token"
_PAGE = 100
_INVITEE = re.compile(r"/scheduled_events/([^/]+)/invitees/([^/]+)$")
_SCOPE = re.compile(r"\b[a-z_]+:(read|write)\b")
_GIVE_SCOPES = "give the token the scopes it lacks"
_ENDED = {BookingStatus.CANCELLED, BookingStatus.RESCHEDULED}


class _Counter(Payload):
    total: Annotated[int | None, ABSENT] = None
    active: Annotated[int | None, ABSENT] = None


class _Listed(ScheduledEvent):
    """An event as lists have it."""

    status: Word = None
    invitees_counter: Annotated[_Counter | None, OBJECT] = None


class _Pages(JSONResponseCursorPaginator):
    """https://developer.calendly.com/api-docs/overview/pagination"""

    def __init__(self, rest: "CalendlyRest") -> None:
        super().__init__(cursor_path="pagination.next_page_token", cursor_param="page_token")
        self._rest = rest

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        self._rest.entries(response, "collection")
        super().update_state(response, data)


class CalendlyRest(Rest[CalendlySettings]):
    """500 requests a minute for a paid user, told in every answer. https://developer.calendly.com/api-docs/overview/rate-limits"""

    url = "https://api.calendly.com"
    limits: ClassVar[Limits] = Limits(account=(Rate(500, 60),))
    swept_by: ClassVar[Literal["updated_at", "starts_at"]] = "starts_at"
    listed_by: ClassVar[Literal["booking_id", "group_id"]] = "group_id"
    compared: ClassVar[tuple[str, ...]] = (
        "status",
        "starts_at",
        "ends_at",
        "service_name",
        "staff",
        "location",
        "guests",
    )

    def credential(self) -> Credential:
        """https://developer.calendly.com/api-docs/overview/authentication"""
        if not self.settings.refresh_token:
            return Credential({"Authorization": f"Bearer {self.secret('api_token')}"})
        token_url = f"{self.settings.api_url.rstrip('/')}/oauth/token" if self.settings.api_url else _TOKENS
        app = App(
            self.label,
            token_url,
            self.secret("client_id"),
            self.secret("client_secret"),
            self.refusal,
            self.pause,
            self._patience,
        )
        file = self._tokens / f"calendly-{self.settings.name}.json"
        return RotatingTokens(
            app, self.secret("refresh_token"), file, f"accounts.{self.settings.name}.refresh_token"
        )

    def paginator(self) -> BasePaginator:
        return _Pages(self)

    def ping(self) -> None:
        self.get("users/me")

    def owner(self) -> str:
        """The organization: a user's key sees another user's meetings where the account's scope lets it."""
        return self._me("current_organization")

    @cached_property
    def whose(self) -> dict[str, str]:
        """The selector that lists need."""
        return (
            {"user": self._me("uri")}
            if self.settings.scope == "user"
            else {"organization": self._me("current_organization")}
        )

    def _me(self, name: str) -> str:
        return self.part(self.client.get("users/me"), str, "resource", name)

    def bookings(self, window: Window) -> Iterator[list[Record]]:
        bounds = {"min_start_time": format_instant(window.since)}
        if window.until:
            bounds["max_start_time"] = format_instant(window.until)
        return self.pages(
            "scheduled_events", "collection", count=_PAGE, sort="start_time:asc", **self.whose, **bounds
        )

    def key(self, entry: Record) -> str:
        if not entry.get("uri"):
            raise PayloadError("a scheduled event without a uri")
        return str(entry["uri"])

    def alike(self, entry: Record, stored: Sequence[StoredBooking]) -> bool:
        """By what an event tells of its invitees: how many there are, how many are coming, where, when and with whom."""
        event = read_value(_Listed, entry)
        if self.settings.check_no_shows and _was_held(event, self.now()):
            return False
        here = [one.booking for one in stored if one.booking.gone_at is None]
        coming = [booking for booking in here if booking.status not in _ENDED]
        shared = (event.start_time, event.end_time, event.name, event.staff(), event.place(), event.guests())
        counter = event.invitees_counter or _Counter()
        return (
            (len(here), len(coming)) == (counter.total, counter.active)
            and all(
                shared
                == (
                    booking.starts_at,
                    booking.ends_at,
                    booking.service_name,
                    booking.staff,
                    booking.location,
                    booking.guests,
                )
                for booking in here  # those that are not coming too: their cancellations may have left out the meeting
            )
        )

    def children(self, entry: Record) -> set[str]:
        return {self.key(entry)}  # its invitees

    def complete(self, entry: Record) -> list[Record]:
        """None when the event is gone since it was listed. Most have one invitee, so the first page is asked for in the cheapest way."""
        path = f"scheduled_events/{_last(self.key(entry))}/invitees"
        first = self.ask(path, count=_PAGE)
        if first is None:
            return []
        invitees = self.entries(first, "collection")
        pagination = first.json().get("pagination")
        if isinstance(pagination, dict) and pagination.get("next_page_token"):
            invitees = [invitee for page in self.pages(path, "collection", count=_PAGE) for invitee in page]
        return [{**invitee, "scheduled_event": entry} for invitee in invitees]

    def fetch(self, booking_id: str) -> Record | None:
        found = _INVITEE.search(booking_id)
        if not found:
            raise PayloadError("not an invitee's URI")
        invitee = self.find(f"scheduled_events/{found[1]}/invitees/{found[2]}", "resource")
        event = invitee and self.find(f"scheduled_events/{found[1]}", "resource")
        return {**invitee, "scheduled_event": event} if invitee and event else None

    def said(self, body: Record) -> str:
        """https://developer.calendly.com/api-docs/overview/errors; OAuth has a form of its own."""
        words = [body.get("title"), body.get("message"), body.get("error"), body.get("error_description")]
        return ": ".join(str(word) for word in words if word)

    def refusal(self, response: Response, remedy: str = "") -> str:
        """A scope that an event needs is asked for with 400, and not with 403 as for reading."""
        details = "; ".join(self.details(json_object(response))) if response.status_code == 400 else ""  # noqa: PLR2004 - bad request
        return super().refusal(response, remedy or (_GIVE_SCOPES if _SCOPE.search(details) else ""))

    def remedy(self, status: int) -> str:
        if status == 403:  # noqa: PLR2004 - forbidden
            return f'{_GIVE_SCOPES}; for scope "organization" its user must be owner or admin, else set scope = "user"'
        return super().remedy(status)

    def pause(self, response: Response) -> float | None:
        """The seconds until the allowance is new, told in every answer, once it is spent."""
        if (
            response.headers.get("X-RateLimit-Remaining") == "0"
            and response.headers.get("X-RateLimit-Reset", "").isdecimal()
        ):
            return float(response.headers["X-RateLimit-Reset"])
        return super().pause(response)

    def resources(self) -> Sequence[EndpointResource]:
        organization = self._me("current_organization")
        return [
            {
                "name": "users_me",
                "primary_key": "uri",
                "endpoint": {"path": "users/me", "data_selector": "resource", "paginator": "single_page"},
            },
            {**_listed("scheduled_events", **self.whose), "processing_steps": [{"map": _with_uuid}]},
            _listed("invitees", path="scheduled_events/{resources.scheduled_events.uuid}/invitees"),
            _listed("organization_memberships", organization=organization),
            _listed("event_types", **self.whose),
            _listed("groups", organization=organization),
            _listed("contacts"),
            _listed("routing_forms", organization=organization),
            _listed("routing_form_submissions", form="{resources.routing_forms.uri}"),
            _listed("webhook_subscriptions", organization=organization, scope="organization"),
        ]


def _listed(name: str, path: str | None = None, **params: str) -> EndpointResource:
    return {
        "name": name,
        "primary_key": "uri",
        "endpoint": {
            "path": path or name,
            "params": {"count": _PAGE, **params},
            "data_selector": "collection",
        },
    }


def _with_uuid(event: dict[str, Any]) -> dict[str, Any]:
    """Paths take the last part of an event's URI."""
    return {**event, "uuid": _last(event["uri"])}


def _last(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2]


def _was_held(event: _Listed, now: datetime) -> bool:
    return event.status == "active" and event.start_time is not None and event.start_time <= now


REST = CalendlyRest
