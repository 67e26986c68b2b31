"""Appointedd's API v1, the complete one. https://api.appointedd.com/docs/reference/"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, ClassVar
from urllib.parse import quote

from dlt.sources.helpers.rest_client.paginators import BasePaginator
from dlt.sources.rest_api.typing import EndpointResource
from requests import Response

from ingest.errors import PayloadError, VendorRefused
from ingest.instant import format_instant, parse_instant
from ingest.rest import Credential, Limits, Rate, Record
from ingest.rest.directory import Directory, Lookup
from ingest.vendors.appointedd import AppointeddSettings
from ingest.vendors.incremental import Span, changes
from ingest.vendors.paginators import Pages
from ingest.vendors.rest import NOT_FOUND, Resource, Rest, Window

_PAGE = 100
_PROFILES = 10_000  # kept: who booked once is likely to have booked again
_SECOND = timedelta(seconds=1)
_CANCELLED = "cancelled"
_HISTORY = timedelta(days=3650)
_OVERLAP = timedelta(minutes=5)


class _Pages(Pages):
    """https://developers.appointedd.com/docs/pagination; `total` is no loop's end, it may change while pages are read."""

    def following(self, response: Response, entries: list[Record]) -> Mapping[str, Any] | None:  # noqa: ARG002 - the page tells
        following = response.json().get("next")
        return {"start": following} if following else None


class AppointeddV1(Rest[AppointeddSettings]):
    """Appointedd publishes no limits; these are ours, so as to be no burden.

    There is no longest window, and one that is asked for whole costs least if a filter should not be heeded.
    """

    url = "https://api.appointedd.com/v1"
    limits: ClassVar[Limits] = Limits(account=(Rate(10, 1),))
    longest: ClassVar[timedelta] = _HISTORY

    def __init__(self, *account: Any, **options: Any) -> None:
        super().__init__(*account, **options)
        self._lists_cancelled = False
        self._finds = False
        self._services = self._directory("services")
        self._resources = self._directory("resources")
        self._profiles = Lookup(self._read_profile, _PROFILES)

    def credential(self) -> Credential:
        """https://developers.appointedd.com/docs/authentication"""
        return Credential({"X-API-KEY": self.secret("api_key")})

    def paginator(self) -> BasePaginator:
        return _Pages(self)

    def ping(self) -> None:
        self.get("resources/groups", limit=1)

    def bookings(self, window: Window) -> Iterator[list[Record]]:
        """https://developers.appointedd.com/reference/get-bookings

        In the natural order, where what changes while pages are read stays in its place. Whether the list has cancelled
        bookings without being asked for them is not told. So they are asked for apart, which is one request more, until
        one of them was in the list: from then on it is known.
        """
        seen: set[str] = set()
        for page in self._updated(window):
            self._lists_cancelled |= any(entry.get("status") == _CANCELLED for entry in page)
            seen.update(str(entry.get("id")) for entry in page)
            yield page
        if not self._lists_cancelled:
            for page in self._updated(window, statuses=_CANCELLED):
                yield [entry for entry in page if str(entry.get("id")) not in seen]

    def _updated(self, window: Window, **filters: str) -> Iterator[list[Record]]:
        """The name of `updated_before` is not told. Not heeding it costs pages, but no booking: we look at the times ourselves."""
        wide = Window(window.since - _SECOND, window.until and window.until + _SECOND)
        bounds = {"updated_after": format_instant(wide.since)} | (
            {"updated_before": format_instant(wide.until)} if wide.until else {}
        )
        for page in self.pages("bookings", "data", limit=_PAGE, **bounds, **filters):
            yield [entry for entry in page if _within(entry, wide)]

    def key(self, entry: Record) -> str:
        if not entry.get("id"):
            raise PayloadError("a booking without an id")
        return str(entry["id"])

    def children(self, entry: Record) -> set[str]:
        customers = entry.get("customers")
        return set(filter(None, map(_customer_id, customers))) if isinstance(customers, list) else set()

    def complete(self, entry: Record) -> list[Record]:
        """With what webhooks tell by name: see `Appointedd.booking_of_record`."""
        whole = dict(entry)
        for name, directory in (("service", self._services), ("resource", self._resources)):
            if isinstance(entry.get(name), str):
                whole[name] = directory.find(entry[name]) or entry[name]
        if isinstance(entry.get("customers"), list):
            whole["customers"] = [self._with_profile(customer) for customer in entry["customers"]]
        return [whole]

    def fetch(self, booking_id: str) -> Record | None:
        found = self._find(booking_id)
        return None if found is None else self.complete(found)[0]

    def _find(self, booking_id: str) -> Record | None:
        """That single bookings are read here is by the pattern of other objects, so a first 404 is doubted.

        Raises VendorRefused when a booking that is in the list is not found either: else every booking would seem gone.
        """
        found = self.find(f"bookings/{quote(booking_id, safe='')}", "data")
        if found is None and not self._finds:
            listed = next(self.pages("bookings", "data", limit=1), [])
            if listed and self.ask(f"bookings/{quote(self.key(listed[0]), safe='')}") is None:
                raise VendorRefused(
                    f"{self.label}: single bookings cannot be read, not even one that is listed", NOT_FOUND
                )
        self._finds = True
        return found

    def said(self, body: Record) -> str:
        """Errors' form is not documented."""
        return super().said(body) or str(body.get("error") or "")

    def remedy(self, status: int) -> str:
        if status == 403:  # noqa: PLR2004 - forbidden, which v1 answers to a wrong key
            return super().remedy(401)
        return super().remedy(status)

    def resources(self) -> Sequence[Resource]:
        """Accounts, locations, availability and webhooks are in v2 only. What the pages call staff are v1's resources."""
        span = Span(_HISTORY, _OVERLAP, self.longest)
        return [
            changes("bookings", "id", self.settings.name, span, self.bookings),
            _listed("customers"),
            _listed("services"),
            _listed("staff", "resources"),
        ]

    def _directory(self, path: str) -> Directory:
        return Directory(lambda: chain.from_iterable(self.pages(path, "data", limit=_PAGE)))

    def _with_profile(self, customer: Any) -> Any:
        """A customer may have been deleted since, or be told of in another way than the rest; the booking stands."""
        name = _customer_id(customer)
        profile = self._profiles.find(name) if name else None
        own = {"id": customer} if isinstance(customer, str) else customer
        return {**own, "profile": profile} if profile else customer

    def _read_profile(self, customer_id: str) -> Record | None:
        response = self.ask(f"customers/{quote(customer_id, safe='')}")
        found: Any = None if response is None else response.json()
        for name in ("data", "profile"):
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else None


def _listed(name: str, path: str | None = None) -> EndpointResource:
    return {
        "name": name,
        "primary_key": "id",
        "endpoint": {"path": path or name, "params": {"limit": _PAGE}, "data_selector": "data"},
    }


def _customer_id(customer: Any) -> str:
    """Empty where nobody is named."""
    if isinstance(customer, str):
        return customer
    name = isinstance(customer, dict) and (customer.get("customer_id") or customer.get("id"))
    return str(name) if name else ""


def _within(entry: Record, window: Window) -> bool:
    """What has no time that can be read is let through, to be complained of there."""
    updated = _moment(entry.get("updated"))
    return updated is None or (window.since <= updated and (window.until is None or updated <= window.until))


def _moment(told: Any) -> datetime | None:
    try:
        return parse_instant(str(told))
    except PayloadError:
        return None
