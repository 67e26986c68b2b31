"""A vendor's REST side, declared once and used twice: for dlt's `rest_api` source, and to compare bookings with the warehouse.

Each vendor's is in `ingest/vendors/<name>/rest.py` as `REST`. It is apart from the vendor's webhooks because it needs dlt's
client, which the receiver never imports.
"""

import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
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
from ingest.clock import server_time
from ingest.errors import ConfigurationError, VendorRefused, VendorUnavailable
from ingest.rest import Credential, Limits, Manners, Patience, Rate, Record
from ingest.rest.adapter import open_session
from ingest.vendors import Account, AccountSettings
from ingest.vendors.parts import PartsSession, mark_parts

A = TypeVar("A", bound=AccountSettings)
T = TypeVar("T")

Resource = EndpointResource | DltResource

NOT_FOUND = 404
_PATIENCE = Patience()


@dataclass(frozen=True, slots=True)
class Window:
    """From `since`, up to `until`; without an end it reaches into the future."""

    since: datetime
    until: datetime | None = None


class Rest(ABC, Generic[A]):
    """The REST side of one account. Whatever does I/O raises VendorUnavailable and VendorRefused.

    `swept_by` is the column of `bookings` that the vendor's list is asked by; `longest` the longest window it answers.
    `listed_by` is the column that holds an entry's key: a booking's id, or that of what several bookings share.
    `compared` are the columns that REST and webhooks both tell, by which two states of one version are told apart.
    `untold` are the states that no webhook tells of: that they are not here yet is nobody's fault.
    `parallel`: how many entries may be completed at once.
    `by_id` are resources without a list, of which only those are read whose `ids` the user names.
    """

    url: ClassVar[str]
    limits: ClassVar[Limits] = Limits()
    swept_by: ClassVar[Literal["updated_at", "starts_at"]] = "updated_at"
    listed_by: ClassVar[Literal["booking_id", "group_id"]] = "booking_id"
    longest: ClassVar[timedelta] = timedelta(days=31)
    compared: ClassVar[tuple[str, ...]] = ("status", "starts_at", "ends_at", "participants", "price")
    untold: ClassVar[frozenset[BookingStatus]] = frozenset()
    parallel: ClassVar[int] = 4
    by_id: ClassVar[tuple[str, ...]] = ()

    def __init__(self, account: Account[A], tokens: Path, patience: Patience = _PATIENCE) -> None:
        """`tokens` is a folder for credentials that renew themselves. Raises ConfigurationError when the settings have none."""
        self.account = account
        self.settings = account.settings
        self.ids: Sequence[str] = ()
        self.base_url = (self.settings.api_url or self.url).rstrip("/") + "/"
        self._tokens = tokens
        self._patience = patience
        self._credential = self.credential()
        self._session, self._adapter = open_session(
            Manners(self.label, self._own_limits(), self._credential, self.refusal, self.pause, patience),
            self.base_url,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Paginators are copied by dlt for each list, and a source's configuration to look at it; the account stays one."""
        return self

    @property
    def label(self) -> str:
        """The account, in messages."""
        return f"{self.account.vendor} account {self.settings.name}"

    @property
    def requests(self) -> int:
        """Sent so far, attempts and all."""
        return self._adapter.requests

    def _own_limits(self) -> Limits:
        """The vendor's published ones, unless the settings say otherwise: an account's depend on its plan, an address's do not."""
        given = self.settings.rate_limit
        if given is None:
            return self.limits
        return Limits(account=(Rate(given, 60),), address=self.limits.address) if given else Limits()

    @property
    def asked_at(self) -> datetime:
        """When this thread's last request was sent, by the vendor's clock: what it was answered is not older."""
        return self._adapter.sent_at()

    @property
    def clock_ahead(self) -> timedelta | None:
        """How far this machine's clock is ahead of the vendor's, None while no answer has told."""
        return self._adapter.clock_ahead

    def now(self) -> datetime:
        """Return the time by the vendor's clock where its answers show that this machine's is wrong."""
        return datetime.now(UTC) - (self.clock_ahead or timedelta(0))

    @cached_property
    def client(self) -> RESTClient:
        """dlt's, over a session of ours."""
        # Given, or dlt would look for settings of its own in files and environment.
        return RESTClient(
            self.base_url, paginator=self.paginator(), session=self._session, config=RuntimeConfiguration()
        )

    def config(self) -> RESTAPIConfig:
        """For `dlt.sources.rest_api.rest_api_resources`."""
        client: ClientConfig = {
            "base_url": self.base_url,
            "paginator": self.paginator(),
            "session": self.parts,
        }
        resources: list[str | EndpointResource | DltResource] = [
            resource if isinstance(resource, DltResource) else mark_parts(resource)
            for resource in self.resources()
        ]
        return {"client": client, "resources": resources}

    @cached_property
    def parts(self) -> PartsSession:
        """The session that `config` reads with; it knows which objects were gone when their parts were asked for."""
        return PartsSession(self._session, self.label)

    def leave_out(self, path: str, status: int) -> None:
        """Note that a resource lacks what is at this path, because the vendor answered its request with this status."""
        self.parts.leave_out(urlsplit(f"{self.base_url}{path}").path, status)

    @abstractmethod
    def credential(self) -> Credential:
        """From the account's settings. Raises ConfigurationError that names the missing one."""

    @abstractmethod
    def paginator(self) -> BasePaginator:
        """How lists are paged."""

    @abstractmethod
    def resources(self) -> Sequence[Resource]:
        """All that can be synced, primary keys included; table names and the account's column are added for them."""

    @abstractmethod
    def ping(self) -> None:
        """One cheap request that needs the credential."""

    def owner(self) -> str | None:
        """Return the vendor's id of the account that the credential belongs to; None where the vendor does not tell."""
        return None

    @abstractmethod
    def bookings(self, window: Window) -> Iterator[list[Record]]:
        """Pages of the vendor's list of what was changed, or starts, in the window (see `swept_by`); bounds may be wider, not narrower."""

    @abstractmethod
    def key(self, entry: Record) -> str:
        """An entry's value of the `listed_by` column. Raises PayloadError."""

    @abstractmethod
    def fetch(self, booking_id: str) -> Record | None:
        """One booking in the form that `Vendor.observe` reads; None when the vendor has none. Raises PayloadError."""

    def alike(self, entry: Record, stored: Sequence[StoredBooking]) -> bool:
        """Where an entry is not a booking: whether it shows that those it stands for are as they are stored. Raises PayloadError."""
        raise NotImplementedError

    def children(self, entry: Record) -> set[str]:  # noqa: ARG002 - as the vendors have it
        """What completing it asks for, each a request of its own; none where the list tells all."""
        return set()

    def complete(self, entry: Record) -> list[Record]:
        """The bookings of an entry, with all that takes further requests, in the form that `Vendor.observe` reads."""
        return [entry]

    def get(self, path: str, **params: Any) -> Any:
        """The JSON of one request."""
        return self.client.get(path, params=params).json()

    def ask(self, path: str, **params: Any) -> Response | None:
        """The answer to one request; None when there is no such thing."""
        try:
            return self.client.get(path, params=params)
        except VendorRefused as error:
            if error.is_absent:
                return None
            raise

    def find(self, path: str, *names: str, **params: Any) -> Record | None:
        """The object in the answer to one request, as `part` has it; None when there is no such thing."""
        response = self.ask(path, **params)
        return None if response is None else self.part(response, dict, *names)

    def part(self, response: Response, kind: type[T], *names: str) -> T:
        """What the names lead to in an answer, or all of it. Raises VendorUnavailable when it is not there, empty, or of another kind."""
        found: Any = response.json()
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        if not found or not isinstance(found, kind):
            missing = f"`{'.'.join(names)}`" if names else "object"
            raise VendorUnavailable(
                f"{self.label}: the answer has no {missing} in it. {self.refusal(response)}"
            )
        return found

    def pages(self, path: str, selector: str, **params: Any) -> Iterator[list[Record]]:
        """All pages of a list, its entries under `selector`."""
        for page in self.client.paginate(path, params=params, data_selector=compile_path(selector)):
            yield list(page)

    def refusal(self, response: Response, remedy: str = "") -> str:
        """`403 Permission Denied (request 5f1c): <what to do>`: one line that holds no body and no secret."""
        request_id = _line(self.request_id(response) or "")
        body = json_object(response)
        words = [
            _line(self._credential.hidden(text)) for text in (self.said(body), "; ".join(self.details(body)))
        ]
        told = " ".join(
            filter(
                None, [str(response.status_code), "; ".join(word.removesuffix(".") for word in words if word)]
            )
        )
        return f"{told}{f' (request {request_id})' if request_id else ''}: {remedy or self.remedy(response.status_code)}"

    def request_id(self, response: Response) -> str | None:
        """What the vendor's support asks for."""
        return response.headers.get("X-Request-Id") or response.headers.get("Request-Id")

    def said(self, body: Record) -> str:
        """The vendor's own words in an error body."""
        return str(body.get("message") or body.get("title") or "")

    def details(self, body: Record) -> list[str]:
        """What an error body says beside its words: scopes that the key lacks, and which parameter is wrong and why.

        https://developer.calendly.com/api-docs/overview/errors; other vendors that tell as much use the same or similar names.
        """
        scopes = [scope for scope in _listed(body.get("required_scopes")) if isinstance(scope, str)]
        wrong = [_detail(entry) for entry in _listed(body.get("details"))]
        return [*([f"required scopes: {', '.join(scopes)}"] if scopes else []), *filter(None, wrong)]

    def remedy(self, status: int) -> str:
        """What a person can do."""
        if status < 400:  # noqa: PLR2004 - a success that is none
            return "this is not how the API answers; is api_url right?"
        vendor_failed = status >= 500  # noqa: PLR2004 - the vendor's own failures begin there
        other = (
            "the vendor failed; try again later" if vendor_failed else "the vendor did not take this request"
        )
        return _REMEDIES.get(status, other)

    def pause(self, response: Response) -> float | None:
        """`Retry-After`, in either form. https://www.rfc-editor.org/rfc/rfc9110#field.retry-after"""
        given = response.headers.get("Retry-After", "")
        if given.isdecimal():
            return float(given)
        with suppress(ValueError, TypeError, OverflowError):  # the second is that of a date without a zone
            return max(
                0.0,
                (
                    parsedate_to_datetime(given) - (server_time(response.headers) or datetime.now(UTC))
                ).total_seconds(),
            )
        return None

    def secret(self, name: str) -> str:
        """A secret of the account's settings. Raises ConfigurationError when it is not set."""
        value = getattr(self.settings, name)
        if value is None:
            raise ConfigurationError(
                f"{self.label}: set accounts.{self.settings.name}.{name}; without it there is no REST side"
            )
        found = str(value.get_secret_value()) if isinstance(value, SecretStr) else str(value)
        if not _SENDABLE.fullmatch(found):
            raise ConfigurationError(
                f"{self.label}: accounts.{self.settings.name}.{name} is empty, or holds what no key does: a space, a line's end"
            )
        return found

    def entries(self, response: Response, container: str) -> list[Record]:
        """The list in a page. Raises VendorUnavailable when there is none: an empty list must not be read out of nonsense."""
        found = json_object(response).get(container)
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise VendorUnavailable(
                f"{self.label}: the page has no list of objects `{container}`. {self.refusal(response)}"
            )
        return found


_REMEDIES = {
    400: "the vendor did not take this request; correct what it names, or run it again if a page's token was too old",
    401: "the key is wrong, expired or revoked; put a new one into the secrets file or the environment",
    402: "the vendor's plan does not include this",
    403: "the key may not read this: look at its scopes or permissions, its user's role, and the plan",
    404: "no such thing at the vendor; is api_url right?",
    410: "the vendor has it no longer",
    429: "other programs use this account's allowance too; run it again later",
}


# Sent in a header, anything else would be an error that shows it.
_SENDABLE = re.compile(r"[!-~]+")
_LONGEST_LINE = 200


def json_object(response: Response) -> Record:
    """The object that an answer is; an empty one where it is something else."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _listed(entries: object) -> list[Any]:
    return entries if isinstance(entries, list) else []


def _detail(entry: object) -> str:
    """`events: scheduled_events:read is required`, of an object that names a parameter and says what is wrong with it."""
    if not isinstance(entry, dict):
        return entry if isinstance(entry, str) else ""
    names = (
        entry.get("parameter") or entry.get("field") or entry.get("name"),
        entry.get("message") or entry.get("detail"),
    )
    return ": ".join(str(part) for part in names if part)


def _line(text: str) -> str:
    """Of what others wrote, as much as a message can hold; nothing in it moves a terminal's cursor."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:_LONGEST_LINE]


AnyRest = Rest[Any]


def load_rest(vendor: str) -> Callable[..., AnyRest]:
    """What opens the REST side of an account of the vendor that is named like its folder: called as `Rest` is."""
    found: Callable[..., AnyRest] = importlib.import_module(f"ingest.vendors.{vendor}.rest").REST
    return found
