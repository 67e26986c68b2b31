"""Resources that take a request for each object of another list; objects that the vendor has deleted meanwhile are left out.

dlt's `rest_api` ends such a request without rows when its session raises IgnoreResponseException.
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

# Marks such a request between dlt's client and our session, and is not sent. Its value says where the parent object is named.
_CHILD_HEADER = "X-Parts-Of"
_LONGEST_NAME = 200


class ChildSession(Session):
    """The account's session, which lets requests for children of deleted objects pass.

    `label` names the account in the log; `absent` has the requests that ended so.
    """

    def __init__(self, session: Session, label: str) -> None:
        super().__init__()
        self.__dict__ |= session.__dict__
        self._label = label
        self.absent: list[str] = []

    def send(self, request: PreparedRequest, **options: Any) -> Response:
        """Send a request. Raises IgnoreResponseException when its parent object is gone, and what the session raises."""
        parent_in = request.headers.pop(_CHILD_HEADER, None)
        try:
            return super().send(request, **options)
        except VendorRefused as error:
            if parent_in is None or not error.is_absent:
                raise
            # Path and query may hold what others wrote; nothing unprintable gets into the log.
            url = urlsplit(request.url or "")
            text = unquote(f"{url.path}?{url.query}" if parent_in == "query" else url.path)
            name = "".join(char if char.isprintable() else "?" for char in text)[:_LONGEST_NAME]
            self.record_absence(name, error.status_code)
            raise IgnoreResponseException from None

    def record_absence(self, name: str, status: int) -> None:
        """Record and log that an object was answered with this status and is left out."""
        if name not in self.absent:
            self.absent.append(name)
        log.warning("sync.absent", account=self._label, path=name, status=status)


def mark_children(resource: EndpointResource) -> EndpointResource:
    """Return a resource whose requests are marked, where they depend on another resource's objects."""
    endpoint = resource.get("endpoint")
    if endpoint is None or isinstance(endpoint, str):
        return resource
    if _names_parent(endpoint.get("path")):
        parent_in = "path"
    elif _names_parent(list((endpoint.get("params") or {}).values())):
        parent_in = "query"
    else:
        return resource
    marked: Endpoint = {**endpoint, "headers": {**(endpoint.get("headers") or {}), _CHILD_HEADER: parent_in}}
    return {**resource, "endpoint": marked}


def _names_parent(texts: str | Sequence[Any] | None) -> bool:
    return "{resources." in str(texts)
