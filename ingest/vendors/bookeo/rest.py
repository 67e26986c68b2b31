"""The REST side of Bookeo, which reads bookings and never writes them.

https://www.bookeo.com/apiref/
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import quote

import dlt
from dlt.common.typing import TSecretStrValue
from dlt.extract import DltResource
from dlt.sources.helpers.rest_client.paginators import BasePaginator
from dlt.sources.rest_api.typing import EndpointResource
from requests import Response

from ingest.errors import ConfigurationError, PayloadError
from ingest.rest import Credential, Limits, Rate, Record
from ingest.rest.responses import json_object
from ingest.times import format_instant
from ingest.vendors.bookeo import Bookeo, BookeoSettings
from ingest.vendors.dlt_resources import (
    Span,
    VendorPaginator,
    generated_resource,
    incremental_resource,
    rest_resources,
)
from ingest.vendors.rest import NOT_FOUND, Resource, Rest, Window

_PAGE = 100
_MINUTE = timedelta(minutes=1)
_LONGEST_WINDOW = timedelta(days=31)
# A window grows by the overlap that reconciliation adds, and to whole minutes.
_WINDOW_MARGIN = timedelta(minutes=15)
_EXPAND_ALL = {"expandCustomer": "true", "expandParticipants": "true"}
_HISTORY = timedelta(days=5 * 365)
_OVERLAP = timedelta(minutes=5)


class _Paginator(VendorPaginator):
    """The paginator of numbered pages.

    A token is the same on every page, and absent where there is only one page.
    https://www.bookeo.com/api/protocol/
    """

    def next_params(self, response: Response, entries: list[Record]) -> Mapping[str, Any] | None:
        info = response.json().get("info")
        if not isinstance(info, dict):
            if len(entries) >= _PAGE:
                raise self.error("a full page without `info`, so that nobody knows whether it is the last")
            return None
        current, total = info.get("currentPage"), info.get("totalPages")
        if not isinstance(current, int) or not isinstance(total, int):
            raise self.error("`info` without the numbers of pages")
        if current >= total:
            return None
        if not info.get("pageNavigationToken"):
            raise self.error("there are more pages, but no token to ask for them")
        return {"pageNavigationToken": info["pageNavigationToken"], "pageNumber": current + 1}


class BookeoRest(Rest[BookeoSettings]):
    """The REST side of an account.

    Bookeo publishes no limits, and asks clients not to poll it. The limits here are ours. A window has at
    most 31 days, both ends included. Without `lang`, names are in the account's own language, as in webhooks.
    """

    url = "https://api.bookeo.com/v2"
    limits: ClassVar[Limits] = Limits(account=(Rate(5, 1),))
    # A webhook's item is the object that REST returns, and its versions are only minutes.
    compared_columns: ClassVar[tuple[str, ...]] = (
        *Rest.compared_columns,
        "staff",
        "service_id",
        "customer_id",
    )
    change_fields: ClassVar[tuple[str, ...]] = ("lastChangeTime", "creationTime")
    longest_window: ClassVar[timedelta] = _LONGEST_WINDOW - _WINDOW_MARGIN
    resources_by_id: ClassVar[tuple[str, ...]] = ("holds",)

    def credential(self) -> Credential:
        """Return both keys as headers, because a query would be in logs.

        https://www.bookeo.com/api/protocol/
        """
        return Credential(
            {"X-Bookeo-secretKey": self.secret("secret_key"), "X-Bookeo-apiKey": self.secret("api_key")}
        )

    def paginator(self) -> BasePaginator:
        return _Paginator(self)

    def ping(self) -> None:
        self.get("settings/apikeyinfo")

    def owner(self) -> str:
        """Return the account's id, which stays the same when its key changes.

        https://www.bookeo.com/apiref/
        """
        return self.extract(self.client.get("settings/apikeyinfo"), str, "accountId")

    def bookings(self, window: Window) -> Iterator[list[Record]]:
        """Yield pages of bookings, which include cancelled bookings and names.

        Parameters request both. The bounds are whole minutes, as bookings' times are.
        """
        until = window.until or self.now()
        bounds = {
            "lastUpdatedStartTime": _minute(window.since),
            "lastUpdatedEndTime": _minute(until + _MINUTE),
        }
        return self.pages(
            "bookings", "data", itemsPerPage=_PAGE, includeCanceled="true", **_EXPAND_ALL, **bounds
        )

    def key(self, entry: Record) -> str:
        if not entry.get("bookingNumber"):
            raise PayloadError("a booking without a bookingNumber")
        return str(entry["bookingNumber"])

    def fetch(self, booking_id: str) -> Record | None:
        return self.find(f"bookings/{quote(booking_id, safe='')}", **_EXPAND_ALL)

    def request_id(self, response: Response) -> str | None:
        """Return the id of an error, which is in its body.

        https://www.bookeo.com/api/protocol/
        """
        error_id = json_object(response).get("errorId")
        return str(error_id) if error_id else None

    def retry_after(self, response: Response) -> float | None:
        """Return the seconds in `Retry-After`, else those in an error's `retryAfter`; None without either.

        Clients of the live API have seen `retryAfter`.
        """
        seconds = super().retry_after(response)
        if seconds is not None or response.ok:
            return seconds
        value = json_object(response).get("retryAfter")
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        try:
            seconds = float(value)
        except (ValueError, OverflowError):
            return None
        return seconds if 0 <= seconds < math.inf else None

    def remedy(self, status: int) -> str:
        if status == 403:  # noqa: PLR2004 - forbidden, which Bookeo answers to wrong keys too
            return (
                "a key is wrong or revoked (api_key is the account's, secret_key the application's), "
                "or it may not read this"
            )
        return super().remedy(status)

    def resources(self) -> Sequence[Resource]:
        """Return all resources.

        Only bookings can be filtered by time of change. `customers_people` takes a request for each customer.
        `holds` has no list, so it is only read when it is named.
        """
        span = Span(_HISTORY, _OVERLAP, self.longest_window)
        return [
            incremental_resource("bookings", "bookingNumber", self.settings.name, span, self.bookings),
            _list_resource("customers", "customers", "id"),
            _list_resource("customers_people", "customers/{resources.customers.id}/linkedpeople", "id"),
            _list_resource("settings_languages", "settings/languages", "tag"),
            _list_resource("settings_products", "settings/products", "productId"),
            _list_resource("resources", "settings/resources", "id"),
            incremental_resource("payments", "id", self.settings.name, span, self._payments),
            _list_resource("webhooks", "webhooks", "id"),
            generated_resource(
                "holds", self._holds, primary_key="id", write_disposition="merge", selected=False
            ),
        ]

    def _holds(self) -> Iterator[Record]:
        """Yield the holds in `requested_ids` that still exist.

        Bookeo does not list holds, and deletes each after a while. Raises ConfigurationError when
        `requested_ids` is empty.
        """
        if not self.requested_ids:
            raise ConfigurationError(
                f"{self.label}: Bookeo has no list of holds; "
                "name the ids of those you want, for instance with --id"
            )
        for hold_id in self.requested_ids:
            path = f"holds/{quote(hold_id, safe='')}"
            hold = self.find(path)
            if hold is None:
                self.record_absence(path, NOT_FOUND)
            else:
                yield {"id": hold_id, **hold}

    def _payments(self, window: Window) -> Iterator[list[Record]]:
        until = window.until or self.now()
        bounds = {"startTime": _minute(window.since), "endTime": _minute(until + _MINUTE)}
        return self.pages("payments", "data", itemsPerPage=_PAGE, **bounds)


def _list_resource(name: str, path: str, key: str) -> EndpointResource:
    return {
        "name": name,
        "primary_key": key,
        "endpoint": {"path": path, "params": {"itemsPerPage": _PAGE}, "data_selector": "data"},
    }


def _minute(moment: datetime) -> str:
    """Return a moment cut to the minute, such as `2026-06-10T06:30:00Z`.

    Bookeo did not accept milliseconds.
    """
    return f"{format_instant(moment)[:16]}:00Z"


@dlt.source(name="bookeo", section="bookeo")
def source(
    secret_key: TSecretStrValue = dlt.secrets.value,
    api_key: TSecretStrValue = dlt.secrets.value,
    api_url: str | None = None,
    hold_ids: Sequence[str] = (),
) -> Iterator[DltResource]:
    """Yield all resources of an account.

    `hold_ids` are the ids of the holds to read, because Bookeo does not list them. If there are any, `holds`
    is read like the other resources.
    """
    yield from rest_resources(Bookeo, api_url, hold_ids, secret_key=secret_key, api_key=api_key)


REST = BookeoRest
