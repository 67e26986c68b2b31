"""Child resources, which take a request for each object of a parent resource.

Objects that the vendor deleted after they were listed are left out: dlt's `rest_api` ends a request without
rows when its session raises IgnoreResponseException.
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

# The header that marks requests for children between dlt's client and our session. It is not sent. Its value
# says which part of the URL has the parent object's name.
_CHILD_HEADER = "X-Parts-Of"
_LONGEST_NAME = 200


class ChildSession(Session):
    """The account's session, which ignores that a request's parent object was deleted.

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
