"""How Bookeo refuses. https://www.bookeo.com/api/protocol/"""

import uuid
from collections.abc import Mapping

from starlette.responses import Response

from ingest.simulator.api import answer


def error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Every one has an id."""
    return answer({"httpStatus": status, "message": message, "errorId": uuid.uuid4().hex}, status, headers)


def missing() -> Response:
    """Of an endpoint, or of one thing."""
    return error(404, "Not found")
