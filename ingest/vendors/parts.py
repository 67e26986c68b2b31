"""Resources that take a request for each object of another list: what the vendor no longer has of them is left out.

An object may be deleted between the list that names it and the request for its parts. dlt's `rest_api` ends such a request
without rows when its session raises IgnoreResponseException.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from dlt.sources.helpers.rest_client.exceptions import IgnoreResponseException
from dlt.sources.rest_api.typing import Endpoint, EndpointResource
from requests import PreparedRequest, Response, Session

from ingest.errors import VendorRefused

log = structlog.get_logger()

# Marks a request for the parts of an object between dlt's client and our session; it is not sent. Its value tells where the object is named.
_MARK = "X-Parts-Of"


class PartsSession(Session):
    """The account's session, lenient where an object is gone whose parts are asked for. `absent` are the requests that ended so."""

    def __init__(self, session: Session, label: str) -> None:
        """`label` names the account in the log."""
        super().__init__()
        self.__dict__ |= session.__dict__
        self._label = label
        self.absent: list[str] = []

    def send(self, request: PreparedRequest, **options: Any) -> Response:
        """Raises IgnoreResponseException for what is gone, and what the session raises."""
        mark = request.headers.pop(_MARK, None)
        try:
            return super().send(request, **options)
        except VendorRefused as error:
            if mark is None or not error.is_absent:
                raise
            self.leave_out(_named(request, mark), error.status_code)
            raise IgnoreResponseException from None

    def leave_out(self, name: str, status: int) -> None:
        """Note and log that what is named was answered with this status, and is left out."""
        if name not in self.absent:
            self.absent.append(name)
        log.warning("sync.absent", account=self._label, path=name, status=status)


def mark_parts(resource: EndpointResource) -> EndpointResource:
    """The resource with its requests marked, where they depend on another resource's objects."""
    endpoint = resource.get("endpoint")
    if endpoint is None or isinstance(endpoint, str):
        return resource
    if _names_parent(endpoint.get("path")):
        mark = "path"
    elif _names_parent(list((endpoint.get("params") or {}).values())):
        mark = "query"
    else:
        return resource
    marked: Endpoint = {**endpoint, "headers": {**(endpoint.get("headers") or {}), _MARK: mark}}
    return {**resource, "endpoint": marked}


def _names_parent(texts: str | Sequence[Any] | None) -> bool:
    return "{resources." in str(texts)


def _named(request: PreparedRequest, mark: str) -> str:
    """Path and query may hold what others wrote; nothing unprintable of it is told."""
    url = urlsplit(request.url or "")
    text = unquote(f"{url.path}?{url.query}" if mark == "query" else url.path)
    return "".join(char if char.isprintable() else "?" for char in text)[:_LONGEST_NAME]


_LONGEST_NAME = 200
