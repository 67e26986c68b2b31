"""Paging through a vendor's list, suspicious of it: nonsense ends it with an error, never as if it were complete."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from dlt.sources.helpers.rest_client.paginators import BasePaginator
from requests import Request, Response

from ingest.errors import VendorUnavailable
from ingest.rest import Record
from ingest.vendors.rest import AnyRest


class Pages(BasePaginator):
    """Each page tells what to ask for next. `container` is the list in it."""

    container: ClassVar[str] = "data"

    def __init__(self, rest: AnyRest) -> None:
        super().__init__()
        self._rest = rest
        self._asked: set[str] = set()
        self._next: Mapping[str, Any] = {}

    def init_request(self, request: Request) -> None:  # noqa: ARG002 - the first page is asked for as it is
        """A paginator may be used again, for another list."""
        self._asked, self._has_next_page = set(), True

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:  # noqa: ARG002 - the page itself is looked at
        """Raises VendorUnavailable for a page without its list, and for one that leads back."""
        self._next = self.following(response, self._rest.entries(response, self.container)) or {}
        self._has_next_page = bool(self._next)
        if (asked := repr(self._next)) in self._asked:
            raise self.nonsense("the pages lead round in a circle")
        self._asked.add(asked)

    def update_request(self, request: Request) -> None:
        """Filters stay as they are."""
        request.params = {**(request.params or {}), **self._next}

    def nonsense(self, what: str) -> VendorUnavailable:
        """An error that names the account."""
        return VendorUnavailable(f"{self._rest.label}: {what}")

    @abstractmethod
    def following(self, response: Response, entries: list[Record]) -> Mapping[str, Any] | None:
        """Parameters that ask for the next page; None after the last. Raises VendorUnavailable."""
