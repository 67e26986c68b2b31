"""HTTP without a network: the simulated vendors answer the product's requests in the same thread."""

from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from email.utils import format_datetime
from io import BytesIO
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import orjson
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from starlette.types import ASGIApp, Message
from urllib3 import HTTPResponse

from tests.referee.clock import Clock

Trouble = Callable[[str], int | None]
"""Called with the path of each request; returns the status of an error to answer, or None."""


class Transport:
    """Answers requests by an ASGI app, where `trouble` does not; answers have a `Date` if `has_date`."""

    def __init__(self, app: ASGIApp, clock: Clock, trouble: Trouble) -> None:
        self._app, self._clock, self._trouble = app, clock, trouble
        self.has_date = True
        self.garbled: set[str] = set()  # the accounts of which the first record of a list cannot be read
        self.requests: Counter[str] = Counter()  # by account

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Send every request of `requests` here."""
        transport = self

        async def call(function: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
            return function(*arguments)

        def send(adapter: HTTPAdapter, request: PreparedRequest, **_: Any) -> Response:
            return adapter.build_response(request, transport.answer(request))

        with patch.object(HTTPAdapter, "send", send), patch("anyio.to_thread.run_sync", call):
            yield

    def answer(self, request: PreparedRequest) -> Any:
        """Return the answer to a request."""
        url = urlsplit(request.url or "")
        self.requests[url.path.split("/")[1]] += 1
        status = self._trouble(url.path)
        messages: list[Message] = []
        if status is None:
            self._call(request, messages)
        else:
            messages = [{"type": "http.response.start", "status": status, "headers": []}]
        start, *parts = messages
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        if self.has_date:
            headers["Date"] = format_datetime(self._clock.now, usegmt=True)
        body = b"".join(part.get("body", b"") for part in parts)
        if status is None and url.path.split("/")[1] in self.garbled:
            body = _garble(body)
        return HTTPResponse(
            body=BytesIO(body), headers=headers, status=start["status"], preload_content=False
        )

    def _call(self, request: PreparedRequest, messages: list[Message]) -> None:
        url = urlsplit(request.url or "")
        body = request.body or b""
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": url.path,
            "raw_path": url.path.encode(),
            "query_string": url.query.encode(),
            "root_path": "",
            "headers": [
                (name.lower().encode(), str(value).encode()) for name, value in request.headers.items()
            ],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
        }

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            messages.append(message)

        _finish(self._app(scope, receive, send))  # type: ignore[arg-type]


def _garble(body: bytes) -> bytes:
    """Return an answer whose first listed record has no values."""
    answer = orjson.loads(body)
    values = answer.values() if isinstance(answer, dict) else [answer]
    for value in values:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value[0] = dict.fromkeys(value[0])
            break
    return orjson.dumps(answer)


def _finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("a simulated vendor waits for something")
