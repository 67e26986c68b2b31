"""The REST sides of Appointedd: API v1, which is complete, and API v2, a beta that uses JSON:API and OAuth.

The form of v2's bookings is not public, so they are synced unchanged and are not compared.
v1: https://api.appointedd.com/docs/reference/
v2: https://developers.appointedd.com/v2.0/reference/introduction-1
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import chain
from typing import Any, ClassVar
from urllib.parse import quote, urljoin, urlsplit

import dlt
from dlt.common.typing import TSecretStrValue
from dlt.extract import DltResource
from dlt.sources.helpers.rest_client.paginators import BasePaginator
from dlt.sources.rest_api.typing import EndpointResource
from requests import Request, Response

from ingest.errors import ConfigurationError, PayloadError, VendorRefused
from ingest.rest import Credential, Limits, ListCache, Rate, Record, RecordCache
from ingest.rest.oauth import ClientCredentials, OAuthApp
from ingest.times import format_instant, parse_instant
from ingest.vendors.appointedd import Appointedd, AppointeddSettings
from ingest.vendors.dlt_resources import Span, VendorPaginator, incremental_resource, rest_resources
from ingest.vendors.rest import NOT_FOUND, Resource, Rest, Window

_PAGE = 100
_CACHED_PROFILES = 10_000  # a customer is likely to have several bookings
_SECOND = timedelta(seconds=1)
_CANCELLED = "cancelled"
_HISTORY = timedelta(days=3650)
_OVERLAP = timedelta(minutes=5)
# The lists of v2.
_LISTS = ("accounts", "bookings", "customers", "services", "staff", "locations", "availability", "webhooks")


class _PaginatorV1(VendorPaginator):
    """The paginator of pages that begin at the booking that the page before names as `next`.

    `total` may change while pages are read.
    https://developers.appointedd.com/docs/pagination
    """

    def next_params(self, response: Response, entries: list[Record]) -> Mapping[str, Any] | None:  # noqa: ARG002 - the page tells
        start = response.json().get("next")
        return {"start": start} if start else None


class AppointeddV1(Rest[AppointeddSettings]):
    """The REST side of an account with API v1.

    Appointedd publishes no limits. The limits here are ours. It does not limit windows either. One long
    window costs least if Appointedd ignores a filter.
    """

    url = "https://api.appointedd.com/v1"
    limits: ClassVar[Limits] = Limits(account=(Rate(10, 1),))
    longest_window: ClassVar[timedelta] = _HISTORY
    change_fields: ClassVar[tuple[str, ...]] = ("updated", "created")

    def __init__(self, *account: Any, **options: Any) -> None:
        super().__init__(*account, **options)
        self._services = self._list_cache("services")
        self._resources = self._list_cache("resources")
        self._profiles = RecordCache(self._read_profile, _CACHED_PROFILES)
        # Known for this run alone: where it is not true any more, all bookings would seem gone.
        self._single_reads_work = False

    def credential(self) -> Credential:
        """Return the API key.

        https://developers.appointedd.com/docs/authentication
        """
        return Credential({"X-API-KEY": self.secret("api_key")})

    def paginator(self) -> BasePaginator:
        return _PaginatorV1(self)

    def ping(self) -> None:
        self.get("resources/groups", limit=1)

    def bookings(self, window: Window) -> Iterator[list[Record]]:
        """Yield pages of bookings in their natural order.

        A booking that changes while pages are read keeps its place in this order.

        Whether the list includes cancelled bookings by default is not documented. So another request reads
        them separately, until the list has included one.
        https://developers.appointedd.com/reference/get-bookings
        """
        listed_ids: set[str] = set()
        for page in self._updated_in(window):
            if any(entry.get("status") == _CANCELLED for entry in page):
                self.learned.note("lists_cancelled", value=True)
            listed_ids.update(str(entry.get("id")) for entry in page)
            yield page
        if not self.learned.get("lists_cancelled"):
            for page in self._updated_in(window, statuses=_CANCELLED):
                yield [entry for entry in page if str(entry.get("id")) not in listed_ids]

    def _updated_in(self, window: Window, **filters: str) -> Iterator[list[Record]]:
        """Yield pages of bookings that were updated in the window.

        The name of `updated_before` is not documented. If Appointedd ignores it, that costs pages but no
        booking, because the times are checked here.
        """
        wider_window = Window(window.since - _SECOND, window.until and window.until + _SECOND)
        bounds = {"updated_after": format_instant(wider_window.since)} | (
            {"updated_before": format_instant(wider_window.until)} if wider_window.until else {}
        )
        for page in self.pages("bookings", "data", limit=_PAGE, **bounds, **filters):
            yield [entry for entry in page if _is_within(entry, wider_window)]

    def key(self, entry: Record) -> str:
        if not entry.get("id"):
            raise PayloadError("a booking without an id")
        return str(entry["id"])

    def detail_keys(self, entry: Record) -> set[str]:
        customers = entry.get("customers")
        return set(filter(None, map(_customer_id, customers))) if isinstance(customers, list) else set()

    def complete(self, entry: Record) -> list[Record]:
        """Return a booking with objects in place of ids, as `Appointedd.booking_of_record` describes them."""
        record = dict(entry)
        for name, cache in (("service", self._services), ("resource", self._resources)):
            if isinstance(entry.get(name), str):
                record[name] = cache.find(entry[name]) or entry[name]
        if isinstance(entry.get("customers"), list):
            record["customers"] = customers = []
            for customer in entry["customers"]:
                # A customer that was deleted or has another form stays unchanged.
                customer_id = _customer_id(customer)
                profile = self._profiles.find(customer_id) if customer_id else None
                fields = {"id": customer} if isinstance(customer, str) else customer
                customers.append({**fields, "profile": profile} if profile else customer)
        return [record]

    def fetch(self, booking_id: str) -> Record | None:
        """Return a booking by its id; None when Appointedd does not have it.

        The path of single bookings is not documented and follows the pattern of other objects. So at the
        first 404, a booking from the list is read too. Raises VendorRefused when that is not found either,
        because otherwise every booking would seem gone.
        """
        record = self.find(f"bookings/{quote(booking_id, safe='')}", "data")
        if record is None and not self._single_reads_work:
            page = next(self.pages("bookings", "data", limit=1), [])
            if not page:
                return None
            if self.get_optional(f"bookings/{quote(self.key(page[0]), safe='')}") is None:
                raise VendorRefused(
                    f"{self.label}: single bookings cannot be read, not even one that is listed", NOT_FOUND
                )
        self._single_reads_work = True
        return None if record is None else self.complete(record)[0]

    def error_message(self, body: Record) -> str:
        """Return the message of an error response, whose form is not documented."""
        return super().error_message(body) or str(body.get("error") or "")

    def remedy(self, status: int) -> str:
        if status == 403:  # noqa: PLR2004 - forbidden, which v1 answers to a wrong key
            return super().remedy(401)
        return super().remedy(status)

    def resources(self) -> Sequence[Resource]:
        """Return all lists.

        Only v2 has accounts, locations, availability and webhooks. The staff in the documentation are v1's
        resources.
        """
        span = Span(_HISTORY, _OVERLAP, self.longest_window)
        return [
            incremental_resource("bookings", "id", self.settings.name, span, self.bookings),
            _list_resource("customers"),
            _list_resource("services"),
            _list_resource("staff", "resources"),
        ]

    def _list_cache(self, path: str) -> ListCache:
        return ListCache(lambda: chain.from_iterable(self.pages(path, "data", limit=_PAGE)))

    def _read_profile(self, customer_id: str) -> Record | None:
        response = self.get_optional(f"customers/{quote(customer_id, safe='')}")
        value: Any = None if response is None else response.json()
        for name in ("data", "profile"):
            value = value.get(name) if isinstance(value, dict) else None
        return value if isinstance(value, dict) else None


def _list_resource(name: str, path: str | None = None) -> EndpointResource:
    return {
        "name": name,
        "primary_key": "id",
        "endpoint": {"path": path or name, "params": {"limit": _PAGE}, "data_selector": "data"},
    }


def _customer_id(customer: Any) -> str:
    """Return a customer's id; an empty text where there is none."""
    if isinstance(customer, str):
        return customer
    name = isinstance(customer, dict) and (customer.get("customer_id") or customer.get("id"))
    return str(name) if name else ""


def _is_within(entry: Record, window: Window) -> bool:
    """Return whether a booking was updated in the window, or has no readable time.

    The mapping reports an unreadable time.
    """
    try:
        updated = parse_instant(str(entry.get("updated")))
    except PayloadError:
        return True
    return window.since <= updated and (window.until is None or updated <= window.until)


class _PaginatorV2(VendorPaginator):
    """The paginator of pages that link to the next one by a URL with all of its parameters.

    https://jsonapi.org/format/#fetching-pagination
    """

    def next_params(self, response: Response, entries: list[Record]) -> Mapping[str, Any] | None:  # noqa: ARG002 - the page tells
        links = response.json().get("links")
        link = links.get("next") if isinstance(links, dict) else None
        link = link.get("href") if isinstance(link, dict) else link
        if not link:
            return None
        url = urljoin(response.url, str(link))
        if urlsplit(url)[:2] != urlsplit(self._rest.base_url)[:2]:
            # The request would send the token to that host too.
            raise self.error("links.next leads to another host")
        return {"url": url}

    def update_request(self, request: Request) -> None:
        if self._next:
            request.url, request.params = self._next["url"], {}


class AppointeddV2(Rest[AppointeddSettings]):
    """The REST side of an account with API v2.

    Appointedd publishes no limits. The limits here are ours.
    """

    url = "https://json-api.appointedd.com/v2"
    limits: ClassVar[Limits] = Limits(account=(Rate(10, 1),))

    def credential(self) -> Credential:
        secrets = (self.secret("client_id"), self.secret("client_secret"))
        return ClientCredentials(
            OAuthApp(
                self.label,
                f"{self.base_url}oauth/tokens",
                *secrets,
                self.describe_error,
                self.retry_after,
                self._budget,
            )
        )

    def paginator(self) -> BasePaginator:
        return _PaginatorV2(self)

    def ping(self) -> None:
        self.get("accounts")

    def bookings(self, window: Window) -> Iterator[list[Record]]:  # noqa: ARG002 - not possible
        raise self._only_v1()

    def key(self, entry: Record) -> str:  # noqa: ARG002 - not possible
        raise self._only_v1()

    def fetch(self, booking_id: str) -> Record | None:  # noqa: ARG002 - not possible
        raise self._only_v1()

    def error_message(self, body: Record) -> str:
        """Return title and detail of the first error in a response.

        Errors of token requests have OAuth's form.
        https://jsonapi.org/format/#errors
        """
        errors = body.get("errors")
        error = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
        words = (error.get("title"), error.get("detail"), body.get("error"), body.get("error_description"))
        return ": ".join(str(word) for word in words if word) or super().error_message(body)

    def resources(self) -> Sequence[Resource]:
        """Return all lists, whose pages have the vendor's default size.

        The parameter that would change the size is not public.
        """
        return [
            {"name": name, "primary_key": "id", "endpoint": {"path": name, "data_selector": "data"}}
            for name in _LISTS
        ]

    def _only_v1(self) -> ConfigurationError:
        name = self.settings.name
        return ConfigurationError(
            f"{self.label}: only API v1 can compare bookings; "
            f'set accounts.{name}.api = "v1" and accounts.{name}.api_key'
        )


@dlt.source(name="appointedd", section="appointedd")
def source(
    api_key: TSecretStrValue | None = None,
    client_id: str | None = None,
    client_secret: TSecretStrValue | None = None,
    api_url: str | None = None,
) -> Iterator[DltResource]:
    """Yield the resources of API v1 with an `api_key`, else those of v2 with `client_id` and `client_secret`.

    Raises ConfigurationError when neither is given.
    """
    settings = (
        {"api": "v1", "api_key": api_key}
        if api_key
        else {"api": "v2", "client_id": client_id, "client_secret": client_secret}
    )
    yield from rest_resources(Appointedd, api_url, **settings)
