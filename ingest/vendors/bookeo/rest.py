"""Bookeo's REST side. https://www.bookeo.com/apiref/

Bookings are never written.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import quote

import dlt
from dlt.extract import DltResource
from dlt.sources.helpers.rest_client.paginators import BasePaginator
from dlt.sources.rest_api.typing import EndpointResource
from requests import Response

from ingest.errors import ConfigurationError, PayloadError
from ingest.instant import format_instant
from ingest.rest import Credential, Limits, Rate, Record
from ingest.vendors.bookeo import BookeoSettings
from ingest.vendors.incremental import Span, changes
from ingest.vendors.paginators import Pages
from ingest.vendors.rest import NOT_FOUND, Resource, Rest, Window, json_object

_PAGE = 100
_MINUTE = timedelta(minutes=1)
_LONGEST = timedelta(days=31)
# What a window grows by on its way here: by the overlap that reconciliation adds, and by whole minutes.
_ROOM = timedelta(minutes=15)
_WHOLE = {"expandCustomer": "true", "expandParticipants": "true"}
_HISTORY = timedelta(days=5 * 365)
_OVERLAP = timedelta(minutes=5)


class _Pages(Pages):
    """https://www.bookeo.com/api/protocol/; the token is the same on every page, and absent where there is but one."""

    def following(self, response: Response, entries: list[Record]) -> Mapping[str, Any] | None:
        info = response.json().get("info")
        if not isinstance(info, dict):
            if len(entries) >= _PAGE:
                raise self.nonsense("a full page without `info`, so that nobody knows whether it is the last")
            return None
        current, total = info.get("currentPage"), info.get("totalPages")
        if not isinstance(current, int) or not isinstance(total, int):
            raise self.nonsense("`info` without the numbers of pages")
        if current >= total:
            return None
        if not info.get("pageNavigationToken"):
            raise self.nonsense("there are more pages, but no token to ask for them")
        return {"pageNavigationToken": info["pageNavigationToken"], "pageNumber": current + 1}


class BookeoRest(Rest[BookeoSettings]):
    """Bookeo publishes no limits, and asks not to be polled; these are ours. Windows are of 31 days at most, both ends in them.

    Names are in the account's own language, that of webhooks, as long as `lang` is not given.
    """

    url = "https://api.bookeo.com/v2"
    limits: ClassVar[Limits] = Limits(account=(Rate(5, 1),))
    # A webhook's item is the object that REST gives, and minutes are all that tells two of its changes apart.
    compared: ClassVar[tuple[str, ...]] = (*Rest.compared, "staff", "service_id", "customer_id")
    longest: ClassVar[timedelta] = _LONGEST - _ROOM
    by_id: ClassVar[tuple[str, ...]] = ("holds",)

    def credential(self) -> Credential:
        """In headers: a query would be in logs. https://www.bookeo.com/api/protocol/"""
        return Credential(
            {"X-Bookeo-secretKey": self.secret("secret_key"), "X-Bookeo-apiKey": self.secret("api_key")}
        )

    def paginator(self) -> BasePaginator:
        return _Pages(self)

    def ping(self) -> None:
        self.get("settings/apikeyinfo")

    def owner(self) -> str:
        """The account's id, which stays when its key is another. https://www.bookeo.com/apiref/"""
        return self.part(self.client.get("settings/apikeyinfo"), str, "accountId")

    def bookings(self, window: Window) -> Iterator[list[Record]]:
        """Without asking there are no cancelled ones, and no names. Bookings tell of minutes only, so the bounds are such."""
        until = window.until or self.now()
        bounds = {
            "lastUpdatedStartTime": _minute(window.since),
            "lastUpdatedEndTime": _minute(until + _MINUTE),
        }
        return self.pages("bookings", "data", itemsPerPage=_PAGE, includeCanceled="true", **_WHOLE, **bounds)

    def key(self, entry: Record) -> str:
        if not entry.get("bookingNumber"):
            raise PayloadError("a booking without a bookingNumber")
        return str(entry["bookingNumber"])

    def fetch(self, booking_id: str) -> Record | None:
        return self.find(f"bookings/{quote(booking_id, safe='')}", **_WHOLE)

    def request_id(self, response: Response) -> str | None:
        """https://www.bookeo.com/api/protocol/: the id of an error is in its body."""
        error_id = json_object(response).get("errorId")
        return str(error_id) if error_id else None

    def pause(self, response: Response) -> float | None:
        """`Retry-After`, else the seconds in an error's `retryAfter`, which is where clients of the live API have seen them."""
        asked = super().pause(response)
        return (
            _seconds(json_object(response).get("retryAfter")) if asked is None and not response.ok else asked
        )

    def remedy(self, status: int) -> str:
        if status == 403:  # noqa: PLR2004 - forbidden, which Bookeo answers to wrong keys too
            return "a key is wrong or revoked (api_key is the account's, secret_key the application's), or it may not read this"
        return super().remedy(status)

    def resources(self) -> Sequence[Resource]:
        """There is a filter by time of change for bookings only. `customers_people` takes a request for each customer."""
        span = Span(_HISTORY, _OVERLAP, self.longest)
        return [
            changes("bookings", "bookingNumber", self.settings.name, span, self.bookings),
            _listed("customers", "customers", "id"),
            _listed("customers_people", "customers/{resources.customers.id}/linkedpeople", "id"),
            _listed("settings_languages", "settings/languages", "tag"),
            _listed("settings_products", "settings/products", "productId"),
            _listed("resources", "settings/resources", "id"),
            changes("payments", "id", self.settings.name, span, self._payments),
            _listed("webhooks", "webhooks", "id"),
            _named("holds", "id", self._holds),
        ]

    def _holds(self) -> Iterator[Record]:
        """Those that were asked for, as far as they are still there: Bookeo lists none, and deletes each after a while.

        Raises ConfigurationError when none was asked for.
        """
        if not self.ids:
            raise ConfigurationError(
                f"{self.label}: Bookeo has no list of holds; name the ids of those you want, for instance with --id"
            )
        for hold_id in self.ids:
            path = f"holds/{quote(hold_id, safe='')}"
            hold = self.find(path)
            if hold is None:
                self.leave_out(path, NOT_FOUND)
            else:
                yield {"id": hold_id, **hold}

    def _payments(self, window: Window) -> Iterator[list[Record]]:
        bounds = {
            "startTime": _minute(window.since),
            "endTime": _minute((window.until or self.now()) + _MINUTE),
        }
        return self.pages("payments", "data", itemsPerPage=_PAGE, **bounds)


def _listed(name: str, path: str, key: str) -> EndpointResource:
    return {
        "name": name,
        "primary_key": key,
        "endpoint": {"path": path, "params": {"itemsPerPage": _PAGE}, "data_selector": "data"},
    }


def _named(name: str, key: str, read: Callable[[], Iterator[Record]]) -> DltResource:
    """A resource without a list, which is read only when it is named."""

    def records() -> Iterator[Record]:
        yield from read()

    return dlt.resource(records, name=name, primary_key=key, write_disposition="merge", selected=False)


def _seconds(value: object) -> float | None:
    """A number of seconds, as JSON or as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < math.inf else None


def _minute(moment: datetime) -> str:
    """`2026-06-10T06:30:00Z`; milliseconds were not taken."""
    return f"{format_instant(moment)[:16]}:00Z"


REST = BookeoRest
