"""Extensions of dlt's `rest_api` source for the lists of vendors.

Pages that make no sense end a list with an error, lists by spans of time are synced incrementally, and
objects that the vendor deleted after they were listed are left out.
"""

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote, urlsplit

import dlt
import structlog
from dlt.extract import DltResource
from dlt.sources.helpers.rest_client.exceptions import IgnoreResponseException
from dlt.sources.helpers.rest_client.paginators import BasePaginator
from dlt.sources.rest_api import rest_api_resources
from dlt.sources.rest_api.typing import Endpoint, EndpointResource
from requests import PreparedRequest, Request, Response, Session

from ingest.errors import VendorRefused, VendorUnavailable
from ingest.rest import Record
from ingest.times import format_instant, parse_instant
from ingest.vendors.account import AnyAccount

if TYPE_CHECKING:
    from ingest.vendors.rest import AnyRest

log = structlog.get_logger()

# The header that marks requests for children between dlt's client and our session. It is not sent. Its value
# says which part of the URL has the parent object's name.
_CHILD_HEADER = "X-Parts-Of"
_LONGEST_NAME = 200
_WRITE_DISPOSITION: Any = {"disposition": "merge", "strategy": "delete-insert"}


class VendorPaginator(BasePaginator):
    """A paginator that reads the parameters for the next page from each page.

    `container` is the name of the list in a page.
    """

    container: ClassVar[str] = "data"

    def __init__(self, rest: "AnyRest") -> None:
        super().__init__()
        self._rest = rest
        self._requested: set[str] = set()
        self._next: Mapping[str, Any] = {}

    def init_request(self, request: Request) -> None:  # noqa: ARG002 - the first page takes no parameters
        """Begin a list. dlt may use a paginator again for another list."""
        self._requested, self._has_next_page = set(), True

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:  # noqa: ARG002 - it is in the response
        """Read a page. Raises VendorUnavailable when it has no list, or the next page is an earlier one."""
        self._next = self.next_params(response, self._rest.entries(response, self.container)) or {}
        self._has_next_page = bool(self._next)
        if (params := repr(self._next)) in self._requested:
            raise self.error("the pages lead round in a circle")
        self._requested.add(params)

    def update_request(self, request: Request) -> None:
        """Add the parameters of the next page to those of the list."""
        request.params = {**(request.params or {}), **self._next}

    def error(self, problem: str) -> VendorUnavailable:
        """Return an error that names the account."""
        return VendorUnavailable(f"{self._rest.label}: {problem}")

    @abstractmethod
    def next_params(self, response: Response, entries: list[Record]) -> Mapping[str, Any] | None:
        """Return the parameters for the next page; None after the last page. Raises VendorUnavailable."""


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time from `since` to `until`. Without an end it reaches into the future."""

    since: datetime
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """The spans of time of an incremental sync.

    The first sync begins `history` ago. Later syncs read the last `overlap` again. `longest` is the longest
    window that the vendor answers.
    """

    history: timedelta
    overlap: timedelta
    longest: timedelta


def incremental_resource(
    name: str, key: str, account: str, span: Span, read: Callable[[Window], Iterator[list[Record]]]
) -> DltResource:
    """Return a resource of the records that `read` yields for one window after another.

    The windows begin at the end of the account's last sync that was loaded. dlt's own incremental loading
    does not fit such lists, because it needs a field that all records have.
    """

    def pages() -> Iterator[list[Record]]:
        until = datetime.now(UTC)
        ends = dlt.current.resource_state().setdefault("done", {})
        last_end = parse_instant(ends[account]) if account in ends else None
        # An end in the future comes from a clock that was ahead by an unknown time, so the last sync may have
        # ended at any time before it.
        since = last_end - span.overlap if last_end and last_end <= until else until - span.history
        for window in split(Window(since, until), span.longest):
            yield from read(window)
        ends[account] = format_instant(until)

    return dlt.resource(pages, name=name, primary_key=key, write_disposition="merge")


def generated_resource(name: str, read: Callable[[], Iterator[Any]], **hints: Any) -> DltResource:
    """Return a resource of what `read` yields. dlt itself takes functions only, and no methods."""

    def records() -> Iterator[Any]:
        yield from read()

    return dlt.resource(records, name=name, **hints)


def split(window: Window, longest: timedelta) -> Iterator[Window]:
    """Split a window into consecutive windows that are not longer than `longest`.

    A window without an end is only used for vendors that do not limit windows, and is not split.
    """
    since = window.since
    while window.until and window.until - since > longest:
        yield Window(since, since + longest)
        since += longest
    yield Window(since, window.until)


class ChildSession(Session):
    """The account's session, which ignores that a request's parent object was deleted.

    dlt's `rest_api` then ends the request without rows. It takes a request for each object of a parent.
    `label` names the account in the log. `absent` has the paths of the ignored requests.
    """

    def __init__(self, session: Session, label: str) -> None:
        super().__init__()
        self.__dict__ |= session.__dict__
        self._label = label
        self.absent: list[str] = []

    def send(self, request: PreparedRequest, **options: Any) -> Response:
        """Send a request.

        Raises IgnoreResponseException when the parent object is gone, and the errors of the account's
        session.
        """
        parent_in = request.headers.pop(_CHILD_HEADER, None)
        try:
            return super().send(request, **options)
        except VendorRefused as error:
            if parent_in is None or not error.is_absent:
                raise
            # Path and query may contain foreign text, so unprintable characters are replaced in the log.
            url = urlsplit(request.url or "")
            text = unquote(f"{url.path}?{url.query}" if parent_in == "query" else url.path)
            name = "".join(char if char.isprintable() else "?" for char in text)[:_LONGEST_NAME]
            self.record_absence(name, error.status_code)
            raise IgnoreResponseException from None

    def record_absence(self, name: str, status: int) -> None:
        """Record and log that an object is left out because the vendor answered with this status."""
        if name not in self.absent:
            self.absent.append(name)
        log.warning("sync.absent", account=self._label, path=name, status=status)


def mark_children(resource: EndpointResource) -> EndpointResource:
    """Return a resource with the header that marks its requests, where it depends on a parent resource."""
    endpoint = resource.get("endpoint")
    if endpoint is None or isinstance(endpoint, str):
        return resource
    if _names_parent(endpoint.get("path")):
        parent_in = "path"
    elif _names_parent(list((endpoint.get("params") or {}).values())):
        parent_in = "query"
    else:
        return resource
    headers = {**(endpoint.get("headers") or {}), _CHILD_HEADER: parent_in}
    marked_endpoint: Endpoint = {**endpoint, "headers": headers}
    return {**resource, "endpoint": marked_endpoint}


def _names_parent(texts: str | Sequence[Any] | None) -> bool:
    return "{resources." in str(texts)


def rest_resources(
    account_class: type[Any], api_url: str | None, ids: Sequence[str] = (), /, **settings: Any
) -> Iterator[DltResource]:
    """Yield the resources of an account with these settings.

    `ids` are the objects to read from a resource that has no list.
    """
    vendor = account_class.vendor
    account_settings = account_class.settings_model.model_validate(
        {"name": "source", "vendor": vendor, "api_url": api_url, **settings}
    )
    account: AnyAccount = account_class(account_settings, "http://127.0.0.1")
    rest = account.rest(Path(os.devnull))  # a source keeps no files
    rest.requested_ids = tuple(dict.fromkeys(ids))
    for resource in rest_api_resources(rest.config()):
        columns = resource.compute_table_schema().get("columns", {})
        if any(hints.get("primary_key") for hints in columns.values()):
            resource.apply_hints(write_disposition=_WRITE_DISPOSITION)
        resource.selected = resource.selected or bool(ids and resource.name in rest.resources_by_id)
        yield resource
