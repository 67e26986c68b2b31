"""OnceHub's REST side (API v2).

https://help.oncehub.com/developers/api/
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

import dlt
import structlog
from dlt.common.typing import TSecretStrValue
from dlt.extract import DltResource
from dlt.sources.helpers.rest_client.paginators import BasePaginator
from dlt.sources.rest_api.typing import Endpoint, EndpointResource
from requests import Response

from ingest.booking import BookingStatus
from ingest.errors import PayloadError, VendorRefused, VendorUnavailable
from ingest.rest import Credential, Limits, ListCache, Rate, Record
from ingest.times import format_instant
from ingest.vendors.dlt_resources import VendorPaginator, generated_resource, rest_resources
from ingest.vendors.fields import convert_fields
from ingest.vendors.oncehub import SECRET_NAMES, Oncehub, OncehubSettings
from ingest.vendors.oncehub.booking import Booked
from ingest.vendors.rest import Resource, Rest, Window

T = TypeVar("T")

log = structlog.get_logger()

_PAGE = 100
_SECOND = timedelta(seconds=1)
_BEGINNING = "2000-01-01T00:00:00Z"
# A sync reads this many seconds again, because the last one may have missed bookings that changed meanwhile.
_OVERLAP_SECONDS = 300
_BAD_REQUEST = 400
# Statuses of responses for calendars whose host has no seat, and for calendars that are not published.
# https://help.oncehub.com/developers/api/
_WITHOUT_SLOTS = {402, 422}

# Values of `expand`, the best first. The specification allows contact and conversation in its description of
# a booking, and names neither in its description of lists. The guide puts `data.` before the names for lists.
# https://help.oncehub.com/developers/overview/expanding-responses/
_LIST_EXPANSIONS = (
    "contact,conversation",
    "data.contact,data.conversation",
    "contact",
    "data.contact",
    "",
)
_EXPANSIONS = ("contact,conversation", "contact", "")


class _Paginator(VendorPaginator):
    """The paginator of OnceHub's lists, where a page begins after the last id of the page before.

    `has_more` was added in 2025. The Link header says that there are more pages, but its URL has neither the
    version nor the filters.
    https://help.oncehub.com/developers/overview/pagination/
    """

    def next_params(self, response: Response, entries: list[Record]) -> Mapping[str, Any] | None:
        has_more = response.json().get("has_more")
        if has_more is None:
            has_more = "next" in response.links and len(entries) >= _PAGE
        if not has_more:
            return None
        if not entries or not entries[-1].get("id"):
            raise self.error("a page says there are more, but has no id to go on from")
        return {"after": entries[-1]["id"]}


class OncehubRest(Rest[OncehubSettings]):
    """The REST side of a OnceHub account, with the published limits.

    https://help.oncehub.com/developers/overview/rate-limits/
    """

    url = "https://api.oncehub.com/v2"
    # A booking that waits for its host's approval. https://help.oncehub.com/developers/webhooks/
    silent_statuses: ClassVar[frozenset[BookingStatus]] = frozenset({BookingStatus.PENDING})
    change_fields: ClassVar[tuple[str, ...]] = ("last_updated_time", "creation_time")
    limits: ClassVar[Limits] = Limits(account=(Rate(5, 1),), address=(Rate(200, 300),))

    def __init__(self, *account: Any, **options: Any) -> None:
        super().__init__(*account, **options)
        self._users = ListCache(lambda: chain.from_iterable(self.pages("users", "data", limit=_PAGE)))
        self._contacts: dict[str, Record | None] = {}
        accepted, accepted_in_lists = self.learned.get("expansions"), self.learned.get("list_expansions")
        self._expansions = list(_EXPANSIONS if accepted is None else accepted)
        self._list_expansions = list(_LIST_EXPANSIONS if accepted_in_lists is None else accepted_in_lists)

    def credential(self) -> Credential:
        """Return the API key.

        https://help.oncehub.com/developers/overview/authentication/
        """
        return Credential({"API-Key": self.secret("api_key")})

    def paginator(self) -> BasePaginator:
        return _Paginator(self)

    def ping(self) -> None:
        self.get("test")

    def bookings(self, window: Window) -> Iterator[list[Record]]:
        """Yield bookings by the time of their last update.

        OnceHub's bounds are exclusive, so the window is wider by a second at both ends.
        """
        bounds = {"last_updated_time.gt": _second(window.since - _SECOND)}
        if window.until:
            bounds["last_updated_time.lt"] = _second(window.until + _SECOND)

        def read_first_page(expand: Record) -> tuple[list[Record], Iterator[list[Record]]]:
            pages = self.pages("bookings", "data", limit=_PAGE, **bounds, **expand)
            return next(pages, []), pages

        first_page, next_pages = self._read_expanded(self._list_expansions, read_first_page)
        yield from chain([first_page], next_pages)

    def key(self, entry: Record) -> str:
        if not entry.get("id"):
            raise PayloadError("a booking without an id")
        return str(entry["id"])

    def detail_keys(self, entry: Record) -> set[str]:
        contact_id = convert_fields(Booked, entry).unread_contact()
        return {f"contacts/{contact_id}"} if contact_id else set()

    def complete(self, entry: Record) -> list[Record]:
        """Return a booking with its owner, and with its contact where only the contact says who booked."""
        owner, contact_id = entry.get("owner"), convert_fields(Booked, entry).unread_contact()
        record = {**entry, "owner": self._users.find(owner) or owner} if isinstance(owner, str) else entry
        contact = self._contact(contact_id) if contact_id else None
        return [{**record, "contact": contact} if contact else record]

    def fetch(self, booking_id: str) -> Record | None:
        """Return a booking; None when it was deleted.

        https://help.oncehub.com/developers/overview/deleted-resources/
        """
        path = f"bookings/{quote(booking_id, safe='')}"
        record = self._read_expanded(self._expansions, lambda expand: self.find(path, **expand))
        return None if record is None or record.get("deleted") is True else self.complete(record)[0]

    def _read_expanded(self, expansions: list[str], read: Callable[[Record], T]) -> T:
        """Read with the first expansion that OnceHub accepts.

        Refused expansions are removed from `expansions`, so they are not tried again.
        """
        while True:
            expansion = expansions[0]
            try:
                return read({"expand": expansion} if expansion else {})
            except VendorRefused as error:
                if error.status_code != _BAD_REQUEST or not expansion:
                    raise
                log.info("rest.expansion_refused", account=self.label, expand=expansion)
                if expansion in expansions:  # another thread may have removed it
                    expansions.remove(expansion)
                self.learned.note("expansions", [*self._expansions])
                self.learned.note("list_expansions", [*self._list_expansions])

    def _contact(self, contact_id: str) -> Record | None:
        """Return a contact, which is only read once; None where there is none, or the key may not read it."""
        if contact_id not in self._contacts:
            try:
                contact = self.find(f"contacts/{quote(contact_id, safe='')}")
            except VendorRefused as error:
                log.warning("rest.contact_refused", account=self.label, detail=str(error))
                contact = None
            self._contacts[contact_id] = None if contact and contact.get("deleted") is True else contact
        return self._contacts[contact_id]

    def remedy(self, status: int) -> str:
        if status == 403:  # noqa: PLR2004 - forbidden
            return "OnceHub's plan does not include the API, or the key may not read this"
        return super().remedy(status)

    def resources(self) -> Sequence[Resource]:
        """Return all resources.

        `booking` and `booking_calendar` take a request for each object, so they are only read on demand.
        """
        return [
            _bookings_resource(),
            _object_resource("booking", "bookings/{resources.bookings.id}"),
            _list_resource("booking_calendars", "booking-calendars"),
            _object_resource("booking_calendar", "booking-calendars/{resources.booking_calendars.id}"),
            # A slot has no id.
            generated_resource(
                "booking_calendar_time_slots",
                self._time_slots,
                primary_key=["_booking_calendars_id", "start_time"],
            ),
            *(
                _list_resource(name, name.replace("_", "-"))
                for name in ("contacts", "users", "teams", "booking_pages", "event_types", "master_pages")
            ),
            {
                **_list_resource("webhooks", "webhooks"),
                # Lists may have a webhook's secret, which the warehouse must not have.
                "processing_steps": [
                    {"map": lambda hook: {key: hook[key] for key in hook if key not in SECRET_NAMES}}
                ],
            },
            generated_resource("webhook_events", self._webhook_events, write_disposition="replace"),
        ]

    def _time_slots(self) -> Iterator[list[Record]]:
        """Yield the free times of every published calendar."""
        for page in self.pages("booking-calendars", "data", limit=_PAGE):
            for calendar in page:
                if calendar.get("published") is not False and calendar.get("id"):
                    yield self._calendar_slots(str(calendar["id"]))

    def _calendar_slots(self, calendar_id: str) -> list[Record]:
        """Return the free times of a calendar.

        The response is an array, without an object around it.
        https://help.oncehub.com/developers/api/
        """
        path = f"booking-calendars/{quote(calendar_id, safe='')}/time-slots"
        try:
            response = self.client.get(path)
        except VendorRefused as error:
            if not error.is_absent and error.status_code not in _WITHOUT_SLOTS:
                raise
            self.record_absence(path, error.status_code)
            return []
        slots = response.json()
        if not isinstance(slots, list) or not all(isinstance(slot, dict) for slot in slots):
            raise VendorUnavailable(
                f"{self.label}: the answer is no list of objects. {self.describe_error(response)}"
            )
        return [{"_booking_calendars_id": calendar_id, **slot} for slot in slots]

    def _webhook_events(self) -> Iterator[list[Record]]:
        """Yield the webhook events.

        OnceHub's guides name this list and its specification does not. Where it does not exist, nothing is
        loaded.
        """
        try:
            yield from self.pages("webhook-events", "data", limit=_PAGE)
        except VendorRefused as error:
            if not error.is_absent:
                raise
            log.warning("sync.no_such_resource", account=self.label, resource="webhook_events")


def _list_resource(name: str, path: str) -> EndpointResource:
    return {
        "name": name,
        "primary_key": "id",
        "endpoint": {"path": path, "params": {"limit": _PAGE}, "data_selector": "data"},
    }


def _object_resource(name: str, path: str) -> EndpointResource:
    endpoint: Endpoint = {"path": path, "data_selector": "$", "paginator": "single_page"}
    return {"name": name, "primary_key": "id", "selected": False, "endpoint": endpoint}


def _bookings_resource() -> EndpointResource:
    """Return the resource of bookings, which is read incrementally by the time of their last update.

    https://help.oncehub.com/developers/recipes/fetch-bookings-periodically/
    """
    # With milliseconds, as in records, because it is compared as text.
    start_of_sync = f"{format_instant(datetime.now(UTC))[:23]}Z"

    def newest(times: Sequence[str]) -> str:
        """Return the latest time, but at most the start of this sync.

        After a booking with a time in 2099, nothing would ever be read again.
        """
        return max(min(time, start_of_sync) for time in times)

    return {
        "name": "bookings",
        "primary_key": "id",
        "endpoint": {
            "path": "bookings",
            "params": {"limit": _PAGE},
            "data_selector": "data",
            "incremental": {
                "cursor_path": "last_updated_time",
                "start_param": "last_updated_time.gt",
                "initial_value": _BEGINNING,
                "last_value_func": newest,
                "lag": -_OVERLAP_SECONDS,  # dlt adds it, unless the function is dlt's own `max`
                "on_cursor_value_missing": "include",
            },
        },
    }


def _second(moment: datetime) -> str:
    """Return an instant to the second, such as `2026-06-10T06:30:00Z`."""
    return f"{format_instant(moment)[:19]}Z"


@dlt.source(name="oncehub", section="oncehub")
def source(api_key: TSecretStrValue = dlt.secrets.value, api_url: str | None = None) -> Iterator[DltResource]:
    """Yield all REST resources of the account that the API key belongs to."""
    yield from rest_resources(Oncehub, api_url, api_key=api_key)


REST = OncehubRest
