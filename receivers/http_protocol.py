"""HTTP as uvicorn reads it with httptools, with limits where it has none: on what surrounds a body, on the time a request may take to come, and on idle connections."""

from asyncio import TimerHandle, Transport
from http import HTTPStatus
from itertools import chain
from math import ceil
from typing import Any

import structlog
import uvicorn
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ingest.telemetry import REFUSED_REQUESTS

log = structlog.get_logger()

# Vendors' request lines and headers take about 1 KiB, in some twenty lines.
_LARGEST_HEAD = 64 * 1024
_LARGEST_TARGET = 16 * 1024
_MOST_HEADERS = 256

# How what is no HTTP begins, where the other side is probably a proxy that is set wrongly.
_OTHER_PROTOCOLS = {
    b"\x16\x03": "TLS came to a port that speaks plain HTTP: let the proxy end TLS and pass requests on to http://, not https://",
    b"PRI * HTTP/2": "HTTP/2 came to a port that speaks HTTP/1.1: set the proxy to HTTP/1.1 towards the receiver",
    b"PROXY ": "the PROXY protocol came before the request: switch it off in the proxy",
    b"\r\n\r\n\x00\r\nQUIT\n": "the PROXY protocol came before the request: switch it off in the proxy",
}
_NOTE_VERIFIED = "note_verified"


def note_verified(scope: Scope) -> None:
    """Have the connection of this request be kept before those that never brought a verified delivery."""
    if _NOTE_VERIFIED in scope.get("state", {}):
        scope["state"][_NOTE_VERIFIED]()


class IdleConnections:
    """Connections without a request to answer, which make room for new ones: the longest idle first, and first those that never brought a verified delivery.

    Half of all connections is kept for those that did, so that nobody drives them out by many requests at once.
    """

    def __init__(self) -> None:
        self._unknown: dict[BoundedHttp, None] = {}
        self._known: dict[BoundedHttp, None] = {}

    def add(self, connection: "BoundedHttp") -> None:
        """It is idle from now on."""
        (self._known if connection.has_delivered else self._unknown)[connection] = None

    def discard(self, connection: "BoundedHttp") -> None:
        """It has a request, or is closed."""
        self._unknown.pop(connection, None)
        self._known.pop(connection, None)

    def first(self, besides: "BoundedHttp", limit: int) -> "BoundedHttp | None":
        """Return the connection that makes room for another one, None where there is none."""
        known = self._known if 2 * len(self._known) > limit else {}
        return next((idle for idle in chain(self._unknown, known) if idle is not besides), None)


class HttpConfig(uvicorn.Config):
    """Uvicorn's settings, with the seconds that a request's head may take to come; `timeout_keep_alive` is how long a connection may be idle."""

    def __init__(self, app: Any, *, head_timeout: float, **options: Any) -> None:
        super().__init__(app, http=BoundedHttp, **options)
        self.head_timeout = head_timeout
        self.idle = IdleConnections()


class BoundedHttp(HttpToolsProtocol):
    """Closes a connection whose request line, headers or trailers do not end: they would all be kept in memory.

    So it does where they do not come within the time that a head may take, nor the rest of a body that was answered before it was whole.
    That time does not run while a request before them is handled: until that is answered, we are who is waited for, and may not be reading.
    Between an answer and the next request a connection may be idle for longer: whoever keeps connections must not see one closed
    at the moment it sends on it. Where all connections are taken, an idle one is closed for each that comes.
    """

    config: HttpConfig
    has_delivered = False
    _head_status = 400
    _head_size = 0
    _beside_the_body = 0
    _within_head = False
    _within_message = False
    _between_messages = False
    _is_new = True
    _deadline: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A request must follow."""
        super().connection_made(transport)
        self.config.idle.add(self)
        self._make_room()
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self.config.idle.discard(self)
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """As uvicorn's; what may be kept is the limit and one read from the socket. Whatever came, a whole head must follow in time."""
        self._beside_the_body += len(data)
        if self._between_messages:
            self._between_messages = False
            self._stop_clock()
        if self._is_new:
            self._is_new = False
            _tell_other_protocol(data)
        super().data_received(data)
        if self._beside_the_body > _LARGEST_HEAD and not self.transport.is_closing():
            self._head_status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self.send_400_response("The request's head is too large.")
        self._start_clock()

    def send_400_response(self, msg: str) -> None:
        """Answer 400, 414 or 431, and close. Nobody knows whose the request was meant to be, so it is counted apart from deliveries."""
        REFUSED_REQUESTS.labels("bad_http").inc()
        head = b"content-length: 0\r\nconnection: close\r\n\r\n"
        if self._head_status == HTTPStatus.BAD_REQUEST:
            super().send_400_response(msg)
        else:
            self.transport.write(STATUS_LINE[self._head_status] + head)
            self.transport.close()

    def on_message_begin(self) -> None:
        """Until its end."""
        self._within_head = self._within_message = True
        self._between_messages = False
        self._head_size = 0
        super().on_message_begin()
        self.scope["state"][_NOTE_VERIFIED] = self._note_verified

    def on_url(self, url: bytes) -> None:
        """In pieces, as they come. Raises ValueError, which ends in 414."""
        super().on_url(url)
        self._head_size = len(self.url)
        if self._head_size > _LARGEST_TARGET:
            self._head_status = HTTPStatus.REQUEST_URI_TOO_LONG
            raise ValueError("the request's target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header of the head; a trailer, which comes after the body, is none. Raises ValueError, which ends in 431."""
        if not self._within_head:
            return
        super().on_header(name, value)
        self._head_size += len(name) + len(value)
        if self._head_size > _LARGEST_HEAD or len(self.headers) > _MOST_HEADERS:
            self._head_status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise ValueError("the request has too many headers, or too large ones")

    def on_headers_complete(self) -> None:
        """The body has a time limit of its own, in the application."""
        self._within_head = False
        self._stop_clock()
        self.config.idle.discard(self)
        if self._is_crowded():
            REFUSED_REQUESTS.labels("overloaded").inc()
        super().on_headers_complete()
        self._restore_fragment()

    def on_body(self, body: bytes) -> None:
        """The body has a limit of its own, in the application."""
        self._beside_the_body -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The next request on this connection is counted anew."""
        self._beside_the_body = 0
        self._within_message = False
        self._between_messages = True
        self._stop_clock()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """What was refused before it was read must still end, and the head that came meanwhile; the body of a request that waits has a limit of its own."""
        if self._within_message:
            self._start_clock()
        self.timeout_keep_alive = self._idle_seconds()
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self.config.idle.add(self)

    def _note_verified(self) -> None:
        self.has_delivered = True

    def _restore_fragment(self) -> None:
        """A target has no fragment (RFC 9112, section 3.2): what stands after a `#` is a part of what it follows, and no vendor signed it. The application takes the path from `raw_path`."""
        before, mark, after = self.url.partition(b"#")
        if b"?" in before:
            self.scope["query_string"] += mark + after
        else:
            self.scope["raw_path"] += mark + after

    def _make_room(self) -> None:
        """Close idle connections at once while there are too many: uvicorn would answer 503 to every request, also to those on older connections."""
        while self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            idle = self.config.idle.first(besides=self, limit=self.limit_concurrency)
            if idle is None:
                return
            REFUSED_REQUESTS.labels("displaced").inc()
            self.config.idle.discard(idle)
            self.connections.discard(idle)
            idle.transport.abort()

    def _start_clock(self) -> None:
        answered = self.cycle is None or self.cycle.response_complete
        if answered and self._deadline is None:
            seconds = self._idle_seconds() if self._between_messages else self.config.head_timeout
            self._deadline = self.loop.call_later(seconds, self._give_up)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if self._within_head:
            REFUSED_REQUESTS.labels("slow_head").inc()
            self.logger.warning("A request's head did not come within receiver.head_timeout.")
        self.transport.abort()

    def _idle_seconds(self) -> int:
        """Where half of all connections are taken, the idle ones make room soon: nobody is to hold them all by doing nothing."""
        crowded = self.limit_concurrency is not None and 2 * len(self.connections) > self.limit_concurrency
        return ceil(self.config.head_timeout) if crowded else self.config.timeout_keep_alive

    def _is_crowded(self) -> bool:
        """Whether uvicorn is going to answer 503, by its own rule."""
        return (
            self.limit_concurrency is not None
            and max(len(self.connections), len(self.tasks)) >= self.limit_concurrency
        )


def _tell_other_protocol(data: bytes) -> None:
    why = next((why for beginning, why in _OTHER_PROTOCOLS.items() if data.startswith(beginning)), "")
    if why:
        log.warning("request.refused", reason="bad_http", why=why, throttle=True)
