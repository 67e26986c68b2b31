"""Calendly's REST side.

Calendly has no filter by time of change, so events are listed by their start, into the future. The invitees
of an event are only read where the event shows that one of them differs, or where it cannot show a
difference: a no-show changes nothing in its event.
https://developer.calendly.com/api-docs
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import dlt
from dlt.common.typing import TSecretStrValue
from dlt.extract import DltResource
from dlt.sources.helpers.rest_client.paginators import BasePaginator, JSONResponseCursorPaginator
from dlt.sources.rest_api.typing import EndpointResource
from msgspec import UNSET, Struct
from requests import Response

from ingest.booking import BookingStatus, StoredBooking
from ingest.errors import PayloadError, VendorRefused
from ingest.rest import Credential, Limits, Rate, Record
from ingest.rest.oauth import OAuthApp, RotatingTokens
from ingest.rest.responses import error_details, json_object
from ingest.times import format_instant
from ingest.vendors.calendly import Calendly, CalendlySettings
from ingest.vendors.calendly.booking import ScheduledEvent
from ingest.vendors.dlt_resources import rest_resources
from ingest.vendors.fields import (
    MaybeObject,
    convert_fields,
    read_maybe_integer,
    read_part,
    read_text,
    read_word,
)
from ingest.vendors.rest import Rest, Window, compiled

_TOKEN_URL = "https://auth.calendly.com/oauth/token"  # noqa: S105 - an address
_PAGE = 100
_INVITEE = re.compile(r"/scheduled_events/([^/]+)/invitees/([^/]+)$")
_SCOPE = re.compile(r"\b[a-z_]+:(read|write)\b")
_GIVE_SCOPES = "give the token the scopes it lacks"
_ENDED_STATUSES = {BookingStatus.CANCELLED, BookingStatus.RESCHEDULED}


class _Counter(Struct):
    total: object = UNSET
    active: object = UNSET


class _ListEntry(ScheduledEvent):
    """A scheduled event in the form that lists have."""

    status: object = UNSET
    invitees_counter: MaybeObject[_Counter] = UNSET

    def counts(self) -> tuple[int | None, int | None]:
        """Return the number of invitees, and of active ones. Raises PayloadError."""
        counter = read_part(_Counter, self.invitees_counter) or _Counter()
        return (
            read_maybe_integer("invitees_counter.total", counter.total),
            read_maybe_integer("invitees_counter.active", counter.active),
        )


class _Paginator(JSONResponseCursorPaginator):
    """The paginator of Calendly's lists, where each page has the token of the next page.

    https://developer.calendly.com/api-docs/overview/pagination
    """

    def __init__(self, rest: "CalendlyRest") -> None:
        super().__init__(cursor_path=compiled("pagination.next_page_token"), cursor_param="page_token")
        self._rest = rest

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        self._rest.entries(response, "collection")
        super().update_state(response, data)


class CalendlyRest(Rest[CalendlySettings]):
    """The REST side of a Calendly account.

    A paid user may make 500 requests per minute. Every response has the number of requests that are left.

    https://developer.calendly.com/api-docs/overview/rate-limits
    """

    url = "https://api.calendly.com"
    limits: ClassVar[Limits] = Limits(account=(Rate(500, 60),))
    window_column: ClassVar[Literal["updated_at", "starts_at"]] = "starts_at"
    key_column: ClassVar[Literal["booking_id", "group_id"]] = "group_id"
    change_fields: ClassVar[tuple[str, ...]] = ("updated_at", "created_at")
    compared_columns: ClassVar[tuple[str, ...]] = (
        "status",
        "starts_at",
        "ends_at",
        "service_name",
        "staff",
        "location",
        "guests",
    )

    def credential(self) -> Credential:
        """Return the credential of the account.

        It is the personal access token, or tokens of the OAuth app where the settings have its refresh token.
        https://developer.calendly.com/api-docs/overview/authentication
        """
        if not self.settings.refresh_token:
            return Credential({"Authorization": f"Bearer {self.secret('api_token')}"})
        token_url = (
            f"{self.settings.api_url.rstrip('/')}/oauth/token" if self.settings.api_url else _TOKEN_URL
        )
        app = OAuthApp(
            self.label,
            token_url,
            self.secret("client_id"),
            self.secret("client_secret"),
            self.describe_error,
            self.retry_after,
            self._budget,
        )
        file = self._state_dir / f"calendly-{self.settings.name}.json"
        return RotatingTokens(
            app, self.secret("refresh_token"), file, f"accounts.{self.settings.name}.refresh_token"
        )

    def paginator(self) -> BasePaginator:
        return _Paginator(self)

    def ping(self) -> None:
        self.get("users/me")

    def owner(self) -> str:
        """Return the organization, because a user's key may see other users' meetings."""
        return self._me("current_organization")

    @property
    def scope_params(self) -> dict[str, str]:
        """Return the parameter that restricts lists to the account's scope."""
        scope = self.settings.scope
        owner = self.learned.get(scope) or self._me("uri" if scope == "user" else "current_organization")
        self.learned.note(scope, owner)
        return {scope: owner}

    def _me(self, name: str) -> str:
        return self.extract(self.client.get("users/me"), str, "resource", name)

    def bookings(self, window: Window) -> Iterator[list[Record]]:
        bounds = {"min_start_time": format_instant(window.since)}
        if window.until:
            bounds["max_start_time"] = format_instant(window.until)
        try:
            yield from self.pages(
                "scheduled_events",
                "collection",
                count=_PAGE,
                sort="start_time:asc",
                **self.scope_params,
                **bounds,
            )
        except VendorRefused:
            self.learned.forget()  # the user may belong to another organization now
            raise

    def key(self, entry: Record) -> str:
        if not entry.get("uri"):
            raise PayloadError("a scheduled event without a uri")
        return str(entry["uri"])

    def is_unchanged(self, entry: Record, stored: Sequence[StoredBooking]) -> bool:
        """Return whether an event agrees with the stored bookings of its invitees.

        The comparison covers the number of invitees, the number of active ones, and the event's times, name,
        staff, location and guests.
        """
        event = convert_fields(_ListEntry, entry)
        starts_at = event.starts_at()
        is_held = read_word(event.status) == "active" and starts_at and starts_at <= self.now()
        if self.settings.check_no_shows and is_held:
            return False
        bookings = [row.booking for row in stored if row.booking.gone_at is None]
        active_bookings = [booking for booking in bookings if booking.status not in _ENDED_STATUSES]
        details = (
            starts_at,
            event.ends_at(),
            read_text(event.name),
            event.staff(),
            event.place().text(),
            event.guests(),
        )
        return (len(bookings), len(active_bookings)) == event.counts() and all(
            details
            == (
                booking.starts_at,
                booking.ends_at,
                booking.service_name,
                booking.staff,
                booking.location,
                booking.guests,
            )
            for booking in bookings  # cancelled ones too: their cancellations may lack the meeting's details
        )

    def unprovable(self) -> str | None:
        if self.settings.check_no_shows:
            return None
        return f"no list has no-shows, and accounts.{self.settings.name}.check_no_shows is off"

    def detail_keys(self, entry: Record) -> set[str]:
        return {self.key(entry)}  # one request for the event's invitees

    def complete(self, entry: Record) -> list[Record]:
        """Return the event's invitees; an empty list when the event was deleted after it was listed.

        Most events have one invitee, so the list is only paginated where its first page is not the last.
        """
        path = f"scheduled_events/{_last_segment(self.key(entry))}/invitees"
        response = self.get_optional(path, count=_PAGE)
        if response is None:
            return []
        invitees = self.entries(response, "collection")
        pagination = response.json().get("pagination")
        if isinstance(pagination, dict) and pagination.get("next_page_token"):
            invitees = [invitee for page in self.pages(path, "collection", count=_PAGE) for invitee in page]
        return [{**invitee, "scheduled_event": entry} for invitee in invitees]

    def fetch(self, booking_id: str) -> Record | None:
        match = _INVITEE.search(booking_id)
        if not match:
            raise PayloadError("not an invitee's URI")
        invitee = self.find(f"scheduled_events/{match[1]}/invitees/{match[2]}", "resource")
        event = invitee and self.find(f"scheduled_events/{match[1]}", "resource")
        return {**invitee, "scheduled_event": event} if invitee and event else None

    def error_message(self, body: Record) -> str:
        """Return the title and the message of an error.

        Errors of OAuth have their own form.
        https://developer.calendly.com/api-docs/overview/errors
        """
        texts = [body.get("title"), body.get("message"), body.get("error"), body.get("error_description")]
        return ": ".join(str(text) for text in texts if text)

    def describe_error(self, response: Response, remedy: str = "") -> str:
        """Describe an error.

        A missing scope for a webhook event is answered with 400, a missing scope for reading with 403.
        """
        is_bad_request = response.status_code == 400  # noqa: PLR2004 - bad request
        details = "; ".join(error_details(json_object(response))) if is_bad_request else ""
        return super().describe_error(response, remedy or (_GIVE_SCOPES if _SCOPE.search(details) else ""))

    def remedy(self, status: int) -> str:
        if status == 403:  # noqa: PLR2004 - forbidden
            return (
                f'{_GIVE_SCOPES}; for scope "organization" its user must be owner or admin,'
                ' else set scope = "user"'
            )
        return super().remedy(status)

    def retry_after(self, response: Response) -> float | None:
        """Return the seconds until the limit is reset, where no request is left."""
        if (
            response.headers.get("X-RateLimit-Remaining") == "0"
            and response.headers.get("X-RateLimit-Reset", "").isdecimal()
        ):
            return float(response.headers["X-RateLimit-Reset"])
        return super().retry_after(response)

    def resources(self) -> Sequence[EndpointResource]:
        organization = self._me("current_organization")
        return [
            {
                "name": "users_me",
                "primary_key": "uri",
                "endpoint": {"path": "users/me", "data_selector": "resource", "paginator": "single_page"},
            },
            {
                **_list_resource("scheduled_events", **self.scope_params),
                # Paths of requests contain the last segment of an event's URI.
                "processing_steps": [{"map": lambda event: {**event, "uuid": _last_segment(event["uri"])}}],
            },
            _list_resource("invitees", path="scheduled_events/{resources.scheduled_events.uuid}/invitees"),
            _list_resource("organization_memberships", organization=organization),
            _list_resource("event_types", **self.scope_params),
            _list_resource("groups", organization=organization),
            _list_resource("contacts"),
            _list_resource("routing_forms", organization=organization),
            _list_resource("routing_form_submissions", form="{resources.routing_forms.uri}"),
            _list_resource("webhook_subscriptions", organization=organization, scope="organization"),
        ]


def _list_resource(name: str, path: str | None = None, **params: str) -> EndpointResource:
    return {
        "name": name,
        "primary_key": "uri",
        "endpoint": {
            "path": path or name,
            "params": {"count": _PAGE, **params},
            "data_selector": "collection",
        },
    }


def _last_segment(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2]


@dlt.source(name="calendly", section="calendly")
def source(
    api_token: TSecretStrValue = dlt.secrets.value, scope: str = "organization", api_url: str | None = None
) -> Iterator[DltResource]:
    """Yield the resources that the token can read.

    `scope` is "organization", which needs the token of an owner or admin, or "user".
    Raises VendorUnavailable and VendorRefused.
    """
    yield from rest_resources(Calendly, api_url, api_token=api_token, scope=scope)


REST = CalendlyRest
