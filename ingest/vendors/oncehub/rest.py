"""OnceHub's REST side (API v2). https://help.oncehub.com/developers/api/"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

import dlt
import structlog
from dlt.extract import DltResource
from dlt.sources.helpers.rest_client.paginators import BasePaginator
from dlt.sources.rest_api.typing import Endpoint, EndpointResource
from requests import Response

from ingest.booking import BookingStatus
from ingest.errors import PayloadError, VendorRefused, VendorUnavailable
from ingest.instant import format_instant
from ingest.rest import Credential, Limits, Rate, Record
from ingest.rest.directory import Directory
from ingest.vendors.fields import read_value
from ingest.vendors.oncehub import SECRET_NAMES, OncehubSettings
from ingest.vendors.oncehub.booking import Booked
from ingest.vendors.paginators import Pages
from ingest.vendors.rest import Resource, Rest, Window

T = TypeVar("T")

log = structlog.get_logger()

_PAGE = 100
_SECOND = timedelta(seconds=1)
_BEGINNING = "2000-01-01T00:00:00Z"
# Seconds that a sync reads again: bookings that changed while the last one was reading may have slipped past it.
_OVERLAP = 300
_BAD_REQUEST = 400
# A calendar's host has no seat; the calendar is not published. https://help.oncehub.com/developers/api/
_WITHOUT_SLOTS = {402, 422}

# What `expand` may be asked for, the best first. The specification lets contact and conversation be expanded where it describes a booking,
# and names neither where it describes the lists; the guide wants `data.` before the names for lists.
# https://help.oncehub.com/developers/overview/expanding-responses/
_EXPANSIONS_OF_LISTS = (
    "contact,conversation",
    "data.contact,data.conversation",
    "contact",
    "data.contact",
    "",
)
_EXPANSIONS = ("contact,conversation", "contact", "")


class _Pages(Pages):
    """https://help.oncehub.com/developers/overview/pagination/

    `has_more` came with a release of 2025. The Link header tells that there are more, but not where: its address has
    neither the version nor the filters.
    """

    def following(self, response: Response, entries: list[Record]) -> Mapping[str, Any] | None:
        more = response.json().get("has_more")
        if more is None:
            more = "next" in response.links and len(entries) >= _PAGE
        if not more:
            return None
        if not entries or not entries[-1].get("id"):
            raise self.nonsense("a page says there are more, but has no id to go on from")
        return {"after": entries[-1]["id"]}


class OncehubRest(Rest[OncehubSettings]):
    """https://help.oncehub.com/developers/overview/rate-limits/"""

    url = "https://api.oncehub.com/v2"
    # A request that waits for its host's approval. https://help.oncehub.com/developers/webhooks/
    untold: ClassVar[frozenset[BookingStatus]] = frozenset({BookingStatus.PENDING})
    limits: ClassVar[Limits] = Limits(account=(Rate(5, 1),), address=(Rate(200, 300),))

    def __init__(self, *account: Any, **options: Any) -> None:
        super().__init__(*account, **options)
        self._users = Directory(lambda: chain.from_iterable(self.pages("users", "data", limit=_PAGE)))
        self._contacts: dict[str, Record | None] = {}
        self._expansions, self._expansions_of_lists = list(_EXPANSIONS), list(_EXPANSIONS_OF_LISTS)

    def credential(self) -> Credential:
        """https://help.oncehub.com/developers/overview/authentication/"""
        return Credential({"API-Key": self.secret("api_key")})

    def paginator(self) -> BasePaginator:
        return _Pages(self)

    def ping(self) -> None:
        self.get("test")

    def bookings(self, window: Window) -> Iterator[list[Record]]:
        """The bounds are exclusive, and documented as dates; so they are whole seconds, and wider by one."""
        bounds = {"last_updated_time.gt": _second(window.since - _SECOND)}
        if window.until:
            bounds["last_updated_time.lt"] = _second(window.until + _SECOND)

        def begin(expand: Record) -> tuple[list[Record], Iterator[list[Record]]]:
            pages = self.pages("bookings", "data", limit=_PAGE, **bounds, **expand)
            return next(pages, []), pages

        first, others = self._expanded(self._expansions_of_lists, begin)
        yield from chain([first], others)

    def key(self, entry: Record) -> str:
        if not entry.get("id"):
            raise PayloadError("a booking without an id")
        return str(entry["id"])

    def children(self, entry: Record) -> set[str]:
        contact_id = read_value(Booked, entry).unread_contact()
        return {f"contacts/{contact_id}"} if contact_id else set()

    def complete(self, entry: Record) -> list[Record]:
        """With the owner, which is an id, and with the contact where only that tells who booked and it was not expanded."""
        owner, contact_id = entry.get("owner"), read_value(Booked, entry).unread_contact()
        whole = {**entry, "owner": self._users.find(owner) or owner} if isinstance(owner, str) else entry
        contact = self._contact(contact_id) if contact_id else None
        return [{**whole, "contact": contact} if contact else whole]

    def fetch(self, booking_id: str) -> Record | None:
        """https://help.oncehub.com/developers/overview/deleted-resources/"""
        path = f"bookings/{quote(booking_id, safe='')}"
        found = self._expanded(self._expansions, lambda expand: self.find(path, **expand))
        return None if found is None or found.get("deleted") is True else self.complete(found)[0]

    def _expanded(self, expansions: list[str], read: Callable[[Record], T]) -> T:
        """Read with the first expansion that OnceHub takes. Those it refuses are not tried again."""
        while True:
            expansion = expansions[0]
            try:
                return read({"expand": expansion} if expansion else {})
            except VendorRefused as error:
                if error.status_code != _BAD_REQUEST or not expansion:
                    raise
                log.info("rest.expansion_refused", account=self.label, expand=expansion)
                if expansion in expansions:  # another thread may have been first
                    expansions.remove(expansion)

    def _contact(self, contact_id: str) -> Record | None:
        """Read a contact, once; None where there is none or the key may not read it, which leaves the booking as it is."""
        if contact_id not in self._contacts:
            try:
                found = self.find(f"contacts/{quote(contact_id, safe='')}")
            except VendorRefused as error:
                log.warning("rest.contact_refused", account=self.label, detail=str(error))
                found = None
            self._contacts[contact_id] = None if found and found.get("deleted") is True else found
        return self._contacts[contact_id]

    def remedy(self, status: int) -> str:
        if status == 403:  # noqa: PLR2004 - forbidden
            return "OnceHub's plan does not include the API, or the key may not read this"
        return super().remedy(status)

    def resources(self) -> Sequence[Resource]:
        """`booking` and `booking_calendar` take a request for each object that the list has whole, so they are read only when named."""
        return [
            _bookings(),
            _single("booking", "bookings/{resources.bookings.id}"),
            _listed("booking_calendars", "booking-calendars"),
            _single("booking_calendar", "booking-calendars/{resources.booking_calendars.id}"),
            _time_slots(self._slots_of_calendars),
            *(
                _listed(name, name.replace("_", "-"))
                for name in ("contacts", "users", "teams", "booking_pages", "event_types", "master_pages")
            ),
            {**_listed("webhooks", "webhooks"), "processing_steps": [{"map": _without_secret}]},
            _webhook_events(lambda: self.pages("webhook-events", "data", limit=_PAGE), self.label),
        ]

    def _slots_of_calendars(self) -> Iterator[list[Record]]:
        """Free times of every calendar that has any to tell."""
        for page in self.pages("booking-calendars", "data", limit=_PAGE):
            for calendar in page:
                if calendar.get("published") is not False and calendar.get("id"):
                    yield self._slots(str(calendar["id"]))

    def _slots(self, calendar_id: str) -> list[Record]:
        """The answer is an array, with nothing around it. https://help.oncehub.com/developers/api/"""
        path = f"booking-calendars/{quote(calendar_id, safe='')}/time-slots"
        try:
            response = self.client.get(path)
        except VendorRefused as error:
            if not error.is_absent and error.status_code not in _WITHOUT_SLOTS:
                raise
            self.leave_out(path, error.status_code)
            return []
        slots = response.json()
        if not isinstance(slots, list) or not all(isinstance(slot, dict) for slot in slots):
            raise VendorUnavailable(
                f"{self.label}: the answer is no list of objects. {self.refusal(response)}"
            )
        return [{"_booking_calendars_id": calendar_id, **slot} for slot in slots]


def _listed(name: str, path: str) -> EndpointResource:
    return {
        "name": name,
        "primary_key": "id",
        "endpoint": {"path": path, "params": {"limit": _PAGE}, "data_selector": "data"},
    }


def _single(name: str, path: str) -> EndpointResource:
    endpoint: Endpoint = {"path": path, "data_selector": "$", "paginator": "single_page"}
    return {"name": name, "primary_key": "id", "selected": False, "endpoint": endpoint}


def _bookings() -> EndpointResource:
    """https://help.oncehub.com/developers/recipes/fetch-bookings-periodically/"""
    started = f"{format_instant(datetime.now(UTC))[:23]}Z"  # with milliseconds, as records have it: it is compared as text

    def newest(times: Sequence[str]) -> str:
        """None is later than when we began to read: asked from a time in 2099 on, nothing would ever come again."""
        return max(min(time, started) for time in times)

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
                "lag": -_OVERLAP,  # added, unless the function is dlt's own `max`
                "on_cursor_value_missing": "include",
            },
        },
    }


def _time_slots(read: Callable[[], Iterator[list[Record]]]) -> DltResource:
    """A slot has no id: it is its calendar and its start."""

    def slots() -> Iterator[list[Record]]:
        yield from read()

    return dlt.resource(
        slots, name="booking_calendar_time_slots", primary_key=["_booking_calendars_id", "start_time"]
    )


def _without_secret(webhook: dict[str, Any]) -> dict[str, Any]:
    """Lists have what the webhook signs with; the warehouse must not."""
    return {name: value for name, value in webhook.items() if name not in SECRET_NAMES}


def _webhook_events(read: Callable[[], Iterator[list[Record]]], label: str) -> DltResource:
    """Named in OnceHub's guides, but not in its specification: where there is none, there is nothing to load."""

    def events() -> Iterator[list[Record]]:
        try:
            yield from read()
        except VendorRefused as error:
            if not error.is_absent:
                raise
            log.warning("sync.no_such_resource", account=label, resource="webhook_events")

    return dlt.resource(events, name="webhook_events", write_disposition="replace")


def _second(moment: datetime) -> str:
    """`2026-06-10T06:30:00Z`."""
    return f"{format_instant(moment)[:19]}Z"


REST = OncehubRest
