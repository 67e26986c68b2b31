"""The base class of vendors' REST sides.

A REST side is declared once, and used for dlt's `rest_api` source and for comparing bookings with the
warehouse. It is separate from the vendor's webhooks because it needs dlt's client, which the receiver never
imports.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar
from urllib.parse import urlsplit

from dlt.common.configuration.specs import RuntimeConfiguration
from dlt.common.jsonpath import compile_path
from dlt.extract import DltResource
from dlt.sources.helpers.rest_client.client import RESTClient
from dlt.sources.helpers.rest_client.paginators import BasePaginator
from dlt.sources.rest_api.typing import ClientConfig, EndpointResource, RESTAPIConfig
from pydantic import SecretStr
from requests import Response

from ingest.booking import BookingStatus, StoredBooking
from ingest.clock import CLOCK_SKEW, UNCHECKED_SKEW
from ingest.errors import ConfigurationError, PayloadError, VendorRefused, VendorUnavailable
from ingest.event import digest
from ingest.rest import Credential, Limits, Rate, Record, RequestPolicy, RetryBudget
from ingest.rest.adapter import open_session
from ingest.rest.learned import Learned
from ingest.rest.responses import error_details, json_object, one_line, remedy_for, retry_after
from ingest.times import parse_instant
from ingest.vendors.account import Account
from ingest.vendors.account_settings import AccountSettings
from ingest.vendors.dlt_resources import ChildSession, Window, mark_children

__all__ = ["NOT_FOUND", "AnyRest", "Resource", "Rest", "Window", "compiled"]

A = TypeVar("A", bound=AccountSettings)
T = TypeVar("T")

Resource = EndpointResource | DltResource

NOT_FOUND = 404


class Rest(ABC, Generic[A]):
    """The REST side of one account.

    Every method that does I/O raises VendorUnavailable and VendorRefused.
    `window_column` is the column of `bookings` that a window of the vendor's list is about.
    `longest_window` is the longest window that the vendor answers.
    `key_column` is the column with an entry's key: a booking's id, or the id that several bookings share.
    `compared_columns` are known from both REST and webhooks. They distinguish two states of the same version.
    `silent_statuses` are the statuses that no webhook reports, so it is no loss when they are missing.
    `concurrency` is the number of entries that may be completed at the same time.
    `change_fields` are the fields of a list's entry with the time of its last change, the best one first.
    `resources_by_id` have no list. Only the objects in `requested_ids` are read, which the user names.
    `learned` is what earlier runs have found out about the vendor's API with this credential.
    """

    url: ClassVar[str]
    limits: ClassVar[Limits] = Limits()
    window_column: ClassVar[Literal["updated_at", "starts_at"]] = "updated_at"
    longest_window: ClassVar[timedelta] = timedelta(days=31)
    key_column: ClassVar[Literal["booking_id", "group_id"]] = "booking_id"
    compared_columns: ClassVar[tuple[str, ...]] = (
        "status",
        "starts_at",
        "ends_at",
        "participants",
        "price",
    )
    silent_statuses: ClassVar[frozenset[BookingStatus]] = frozenset()
    concurrency: ClassVar[int] = 4
    change_fields: ClassVar[tuple[str, ...]] = ()
    resources_by_id: ClassVar[tuple[str, ...]] = ()

    def __init__(self, account: Account[A], state_dir: Path, budget: RetryBudget | None = None) -> None:
        """Open the REST side, as `Account.rest` describes it.

        Raises ConfigurationError when the settings lack the credential.
        """
        self.account = account
        self.settings = account.settings
        self.requested_ids: Sequence[str] = ()
        self.further_pages = 0  # pages of lists that were read after a first page
        self.base_url = (self.settings.api_url or self.url).rstrip("/") + "/"
        self._state_dir = state_dir
        self._budget = budget or RetryBudget()
        self._credential = self.credential()
        self.learned = Learned(
            state_dir / f"{self.settings.name}.learned.json",
            digest(account.source, self.base_url, self.settings.rest_fingerprint()),
        )
        policy = RequestPolicy(
            self.label,
            self._limits(),
            self._credential,
            self.describe_error,
            self.retry_after,
            self._budget,
        )
        self._session, self._adapter = open_session(policy, self.base_url)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return this object itself, because dlt copies paginators and a source's configuration."""
        return self

    @property
    def label(self) -> str:
        """Return the account's name for messages."""
        return f"{self.account.vendor} account {self.settings.name}"

    @property
    def requests(self) -> int:
        """Return the number of requests so far, including all attempts."""
        return self._adapter.requests

    def _limits(self) -> Limits:
        """Return the vendor's published limits, or the account's limit of the settings.

        An account's limit depends on its plan. The limit of an IP address does not, so it still applies,
        unless the setting is 0, which means no limits.
        """
        per_minute = self.settings.rate_limit
        if per_minute is None:
            return self.limits
        return (
            Limits(account=(Rate(per_minute, 60),), address=self.limits.address) if per_minute else Limits()
        )

    @property
    def last_request_at(self) -> datetime:
        """Return when this thread's last request was sent, by the vendor's clock.

        The data in the response are not older.
        """
        return self._adapter.sent_at()

    @property
    def clock_ahead(self) -> timedelta | None:
        """Return how far this machine's clock is ahead of the vendor's; None while no response had a time."""
        return self._adapter.clock_ahead

    def now(self) -> datetime:
        """Return the time by the vendor's clock, or by this machine's while no response had a time."""
        return self._adapter.by_vendors_clock(datetime.now(UTC))

    def assume_clock_ahead(self, ahead: timedelta | None) -> None:
        """Take this machine's clock to be so far ahead while no response has a time; None if unknown."""
        self._adapter.assumed_ahead = ahead

    @property
    def clock_skew(self) -> timedelta:
        """Return how far a time of the vendor's may be ahead of `now`: far, while nothing tells its time."""
        is_known = self.clock_ahead is not None or self._adapter.assumed_ahead is not None
        return CLOCK_SKEW if is_known else UNCHECKED_SKEW

    @cached_property
    def client(self) -> RESTClient:
        """Return dlt's client over the account's session."""
        # Without a configuration, dlt would look for its settings in files and in the environment.
        return RESTClient(
            self.base_url, paginator=self.paginator(), session=self._session, config=RuntimeConfiguration()
        )

    def config(self) -> RESTAPIConfig:
        """Return the configuration for `dlt.sources.rest_api.rest_api_resources`."""
        client: ClientConfig = {
            "base_url": self.base_url,
            "paginator": self.paginator(),
            "session": self.child_session,
        }
        resources: list[str | EndpointResource | DltResource] = [
            resource if isinstance(resource, DltResource) else mark_children(resource)
            for resource in self.resources()
        ]
        return {"client": client, "resources": resources}

    @cached_property
    def child_session(self) -> ChildSession:
        """Return the session for the resources of `config`, which records the objects that were gone."""
        return ChildSession(self._session, self.label)

    def record_absence(self, path: str, status: int) -> None:
        """Record that a resource lacks the object at this path, as the vendor answered with this status."""
        self.child_session.record_absence(urlsplit(f"{self.base_url}{path}").path, status)

    @abstractmethod
    def credential(self) -> Credential:
        """Return the credential of the account's settings.

        Raises ConfigurationError, which names the missing setting.
        """

    @abstractmethod
    def paginator(self) -> BasePaginator:
        """Return the paginator for the vendor's lists."""

    @abstractmethod
    def resources(self) -> Sequence[Resource]:
        """Return all resources that can be synced, with their primary keys.

        The names of tables and the account's column are added later.
        """

    @abstractmethod
    def ping(self) -> None:
        """Make one cheap request that needs the credential."""

    def owner(self) -> str | None:
        """Return the vendor's id of the credential's account; None where the vendor does not show it."""
        return None

    @abstractmethod
    def bookings(self, window: Window) -> Iterator[list[Record]]:
        """Yield pages of the entries whose `window_column` is in the window.

        The request may be for a wider window, but not for a narrower one.
        """

    @abstractmethod
    def key(self, entry: Record) -> str:
        """Return an entry's value of `key_column`. Raises PayloadError."""

    @abstractmethod
    def fetch(self, booking_id: str) -> Record | None:
        """Return a booking in the form that `Account.observe` reads; None when the vendor does not have it.

        Raises PayloadError.
        """

    def changed_at(self, entry: Record) -> datetime | None:
        """Return when an entry changed last, although it cannot be read otherwise; None where that fails."""
        for name in self.change_fields:
            if entry.get(name):
                with suppress(PayloadError):
                    return parse_instant(str(entry[name]))
        return None

    def unprovable(self) -> str | None:
        """Return which changes of bookings the vendor cannot be asked for, in words; None without such."""
        return None

    def is_unchanged(self, entry: Record, stored: Sequence[StoredBooking]) -> bool:
        """Return whether an entry shows that its bookings equal the stored ones.

        This is only called for vendors whose entries are not bookings. Raises PayloadError.
        """
        raise NotImplementedError

    def detail_keys(self, entry: Record) -> set[str]:  # noqa: ARG002 - for vendors whose lists lack something
        """Return a key for each further request that `complete` makes for an entry."""
        return set()

    def complete(self, entry: Record) -> list[Record]:
        """Return the bookings of an entry in the form that `Account.observe` reads.

        Data that lists lack are read by further requests.
        """
        return [entry]

    def get(self, path: str, **params: Any) -> Any:
        """Return the JSON of one response."""
        return self.client.get(path, params=params).json()

    def get_optional(self, path: str, **params: Any) -> Response | None:
        """Return the response to one request; None when the vendor has no such object."""
        try:
            return self.client.get(path, params=params)
        except VendorRefused as error:
            if error.is_absent:
                return None
            raise

    def find(self, path: str, *names: str, **params: Any) -> Record | None:
        """Return the object in the response to one request; None when the vendor has no such object.

        `names` lead to the object, as for `extract`.
        """
        response = self.get_optional(path, **params)
        return None if response is None else self.extract(response, dict, *names)

    def extract(self, response: Response, kind: type[T], *names: str) -> T:
        """Return the value that the names lead to in a response's JSON; without names, the whole JSON.

        Raises VendorUnavailable when it is missing, empty, or of another kind.
        """
        value: Any = response.json()
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        if not value or not isinstance(value, kind):
            path = f"`{'.'.join(names)}`" if names else "object"
            raise VendorUnavailable(
                f"{self.label}: the answer has no {path} in it. {self.describe_error(response)}"
            )
        return value

    def pages(self, path: str, selector: str, **params: Any) -> Iterator[list[Record]]:
        """Yield all pages of a list. `selector` is the path of the entries in a page."""
        pages = self.client.paginate(path, params=params, data_selector=compiled(selector))
        for number, page in enumerate(pages):
            self.further_pages += number > 0
            yield list(page)

    def entries(self, response: Response, container: str) -> list[Record]:
        """Return the entries of a page.

        Raises VendorUnavailable when the page has no list of objects, which must not count as an empty list.
        """
        entries = json_object(response).get(container)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise VendorUnavailable(
                f"{self.label}: the page has no list of objects `{container}`."
                f" {self.describe_error(response)}"
            )
        return entries

    def describe_error(self, response: Response, remedy: str = "") -> str:
        """Describe an error in one line, such as `403 Permission Denied (request 5f1c): <what to do>`.

        The line contains no body and no secret.
        """
        body = json_object(response)
        request_id = one_line(self.request_id(response) or "")
        parts = [self.error_message(body), "; ".join(error_details(body))]
        message = "; ".join(
            line.removesuffix(".") for part in parts if (line := one_line(self._credential.redact(part)))
        )
        status = f"{response.status_code} {message}" if message else str(response.status_code)
        request = f" (request {request_id})" if request_id else ""
        return f"{status}{request}: {remedy or self.remedy(response.status_code)}"

    def request_id(self, response: Response) -> str | None:
        """Return the id of the request, which the vendor's support asks for."""
        return response.headers.get("X-Request-Id") or response.headers.get("Request-Id")

    def error_message(self, body: Record) -> str:
        """Return the vendor's message in the body of an error."""
        return str(body.get("message") or body.get("title") or "")

    def remedy(self, status: int) -> str:
        """Return what a person can do about a response with this status."""
        return remedy_for(status)

    def retry_after(self, response: Response) -> float | None:
        """Return the seconds to wait before a retry; None where the response does not say."""
        return retry_after(response)

    def secret(self, name: str) -> str:
        """Return a secret of the account's settings.

        Raises ConfigurationError when it is not set, or cannot be sent in a header.
        """
        setting = f"accounts.{self.settings.name}.{name}"
        value = getattr(self.settings, name)
        if value is None:
            raise ConfigurationError(f"{self.label}: set {setting}; the REST API needs it")
        text = str(value.get_secret_value()) if isinstance(value, SecretStr) else str(value)
        # Any other character in a header would raise an error whose message shows the secret.
        if not _SENDABLE.fullmatch(text):
            raise ConfigurationError(
                f"{self.label}: {setting} is empty, or has a space or a line end, which no key has"
            )
        return text


AnyRest = Rest[Any]

_SENDABLE = re.compile(r"[!-~]+")
compiled = cache(compile_path)  # compiling takes as long as a request
