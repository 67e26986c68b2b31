"""HTTP as uvicorn reads it with httptools, with limits where it has none: on what surrounds a body, and on the time a request may take to come."""

from asyncio import TimerHandle, Transport
from math import ceil
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingest.telemetry import REFUSED_REQUESTS
from receivers.seldom import Seldom

log = structlog.get_logger()

# Vendors' request lines and headers take about 1 KiB.
_LARGEST_HEAD = 64 * 1024

# How what is no HTTP begins, where the other side is probably a proxy that is set wrongly.
_OTHER_PROTOCOLS = {
    b"\x16\x03": "TLS came to a port that speaks plain HTTP: let the proxy end TLS and pass requests on to http://, not https://",
    b"PRI * HTTP/2": "HTTP/2 came to a port that speaks HTTP/1.1: set the proxy to HTTP/1.1 towards the receiver",
    b"PROXY ": "the PROXY protocol came before the request: switch it off in the proxy",
    b"\r\n\r\n\x00\r\nQUIT\n": "the PROXY protocol came before the request: switch it off in the proxy",
}
_seldom = Seldom()


class HttpConfig(uvicorn.Config):
    """Uvicorn's settings, with the seconds that a request's head may take to come; `timeout_keep_alive` is how long a connection may be idle."""

    def __init__(self, app: Any, *, head_timeout: float, **options: Any) -> None:
        super().__init__(app, http=BoundedHttp, **options)
        self.head_timeout = head_timeout


class BoundedHttp(HttpToolsProtocol):
    """Closes a connection whose request line, headers or trailers do not end: they would all be kept in memory.

    So it does where they do not come within the time that a head may take, nor the rest of a body that was answered before it was whole.
    That time does not run while a request before them is handled: until that is answered, we are who is waited for, and may not be reading.
    Between an answer and the next request a connection may be idle for longer: whoever keeps connections must not see one closed
    at the moment it sends on it.
    """

    config: HttpConfig
    _beside_the_body = 0
    _within_head = False
    _within_message = False
    _between_messages = False
    _is_new = True
    _deadline: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A request must follow."""
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
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
            self.send_400_response("The request's head is too large.")
        self._start_clock()

    def send_400_response(self, msg: str) -> None:
        """Nobody knows whose it was meant to be, so it is counted apart from deliveries."""
        REFUSED_REQUESTS.labels("bad_http").inc()
        super().send_400_response(msg)

    def on_message_begin(self) -> None:
        """Until its end."""
        self._within_head = self._within_message = True
        self._between_messages = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The body has a time limit of its own, in the application."""
        self._within_head = False
        self._stop_clock()
        if self._is_crowded():
            REFUSED_REQUESTS.labels("overloaded").inc()
        super().on_headers_complete()

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
        return self.limit_concurrency is not None and max(len(self.connections), len(self.tasks)) >= self.limit_concurrency


def _tell_other_protocol(data: bytes) -> None:
    why = next((why for beginning, why in _OTHER_PROTOCOLS.items() if data.startswith(beginning)), "")
    unreported = _seldom.unreported("request.refused", "", why) if why else None
    if unreported is not None:
        log.warning("request.refused", reason="bad_http", why=why, unreported=unreported)
