"""The base class of vendors' paginators.

A page that makes no sense ends a list with an error, never as if the list were complete.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from dlt.sources.helpers.rest_client.paginators import BasePaginator
from requests import Request, Response

from ingest.errors import VendorUnavailable
from ingest.rest import Record
from ingest.vendors.rest import AnyRest


class VendorPaginator(BasePaginator):
    """A paginator that reads the parameters for the next page from each page.

    `container` is the name of the list in a page.
    """

    container: ClassVar[str] = "data"

    def __init__(self, rest: AnyRest) -> None:
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
