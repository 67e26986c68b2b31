"""Uvicorn's HTTP protocol over httptools, with the limits that it lacks.

They are on the size of what surrounds a body, on the time in which a request has to come, and on idle
connections.
"""

from asyncio import TimerHandle, Transport
from http import HTTPStatus
from itertools import chain
from math import ceil
from typing import Any
from urllib.parse import unquote

import httptools
import structlog
import uvicorn
from starlette.types import Scope
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ingest.telemetry import REFUSED_REQUESTS
from receivers.http_request import CONNECTION, TakesWholeRequests, WholeRequest
from receivers.life import ANY_SOURCE, REFUSED

log = structlog.get_logger()

# Vendors' request lines and headers take about 1 KiB, in some twenty lines.
_MAX_HEAD_BYTES = 64 * 1024
_MAX_TARGET_BYTES = 16 * 1024
_MAX_HEADERS = 256

# The first bytes of other protocols, which probably come from a proxy that is configured wrongly.
_OTHER_PROTOCOLS = {
    b"\x16\x03": "TLS came to a port that speaks plain HTTP: let the proxy "
    "end TLS and pass requests on to http://, not https://",
    b"PRI * HTTP/2": "HTTP/2 came to a port that speaks HTTP/1.1: "
    "set the proxy to HTTP/1.1 towards the receiver",
    b"PROXY ": "the PROXY protocol came before the request: switch it off in the proxy",
    b"\r\n\r\n\x00\r\nQUIT\n": "the PROXY protocol came before the request: switch it off in the proxy",
}
_ASGI = {"version": "3.0", "spec_version": "2.3"}


class IdleConnections:
    """Connections without a request to answer, of which the longest idle is closed first for a new one.

    Those that never brought a verified delivery come first. Half of all connections is kept for those that
    did, so that nobody drives them out by many requests at once.
    """

    def __init__(self) -> None:
        self._unverified: dict[BoundedHttp, None] = {}
        self._verified: dict[BoundedHttp, None] = {}

    def add(self, connection: "BoundedHttp") -> None:
        """Note that a connection is idle from now on."""
        (self._verified if connection.has_delivered else self._unverified)[connection] = None

    def discard(self, connection: "BoundedHttp") -> None:
        """Note that a connection has a request, or is closed."""
        self._unverified.pop(connection, None)
        self._verified.pop(connection, None)

    def first(self, exclude: "BoundedHttp", limit: int) -> "BoundedHttp | None":
        """Return the connection to close for a new one; None where there is none."""
        verified = self._verified if 2 * len(self._verified) > limit else {}
        return next((idle for idle in chain(self._unverified, verified) if idle is not exclude), None)


class HttpConfig(uvicorn.Config):
    """Uvicorn's configuration with `BoundedHttp`.

    `head_timeout` is in how many seconds a request's head has to come; `timeout_keep_alive` is how long a
    connection may be idle.
    """

    def __init__(self, app: Any, *, head_timeout: float, **options: Any) -> None:
        super().__init__(app, http=BoundedHttp, **options)
        self.head_timeout = head_timeout
        self.idle = IdleConnections()
        self.takes_requests = False

    def load(self) -> None:
        """Load the application, and look whether it takes requests without a task."""
        super().load()
        self.takes_requests = isinstance(self.loaded_app, TakesWholeRequests)


class BoundedHttp(HttpToolsProtocol):
    """A protocol that closes connections which take too much memory, or too long.

    - Request line, headers and trailers are limited in size, because all of them are kept in memory.
    - A head has to come within `head_timeout`. So has the rest of a body that was answered before it was
      complete.
    - That time does not run while an earlier request on the connection is handled: until it is answered, we
      may not be reading.
    - Between an answer and the next request a connection may be idle for longer: a client that keeps
      connections must not see one closed at the moment it sends on it.
    - Where all connections are taken, an idle one is closed for each new one.
    - A client that sends and does not read has to read on within `head_timeout`, and gets no more answers
      meanwhile.
    - Of what came together on a connection, each turn of the event loop starts one request, so that thousands
      of them do not hold up other connections.
    """

    config: HttpConfig
    cycle: WholeRequest  # the last one that came
    has_delivered = False
    _head_status = 400
    _head_size = 0
    _beside_the_body = 0
    _within_head = False
    is_within_message = False
    _between_messages = False
    _is_new = True
    _deadline: TimerHandle | None = None
    _read_deadline: TimerHandle | None = None
    _unstarted: tuple[WholeRequest, Any] | None = None
    _started: WholeRequest | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Make room for the connection, and wait for a request."""
        super().connection_made(transport)
        self.config.idle.add(self)
        self._make_room()
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self.config.idle.discard(self)
        self._stop_clock()
        if self._started is not None:  # uvicorn marks the last request that came, which may wait behind it
            self._started.disconnected = not self._started.response_complete
            self._started.message_event.set()
        super().connection_lost(exc)
        self._stop_read_clock()

    def pause_writing(self) -> None:
        """Limit the time in which the client has to read its answers."""
        super().pause_writing()
        self._read_deadline = self.loop.call_later(self.config.head_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on with answers."""
        super().resume_writing()
        self._stop_read_clock()

    def data_received(self, data: bytes) -> None:
        """Parse the data, and refuse a head that is too large.

        What can be in memory is the limit and one read from the socket.
        """
        self._beside_the_body += len(data)
        if self._between_messages:
            self._between_messages = False
            self._stop_clock()
        if self._is_new:
            self._is_new = False
            _log_other_protocol(data)
        super().data_received(data)
        self._start()
        if self._beside_the_body > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self._head_status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self.send_400_response("The request's head is too large.")
        self._start_clock()

    def send_400_response(self, msg: str) -> None:
        """Answer 400, 414 or 431, and close.

        Its account is not known, so it is not counted among deliveries.
        """
        REFUSED_REQUESTS.labels("bad_http").inc()
        head = b"content-length: 0\r\nconnection: close\r\n\r\n"
        if self._head_status == HTTPStatus.BAD_REQUEST:
            super().send_400_response(msg)
        else:
            self.transport.write(STATUS_LINE[self._head_status] + head)
            self.transport.close()

    # Some of the following methods do all that uvicorn's do, with fewer calls and objects.

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._within_head = self.is_within_message = True
        self._between_messages = self.expect_100_continue = False
        self._head_size = 0
        self.url, self.headers = b"", []

    def on_url(self, url: bytes) -> None:
        """Add a piece of the target. Raises ValueError, which ends in 414."""
        self.url += url
        self._head_size = len(self.url)
        if self._head_size > _MAX_TARGET_BYTES:
            self._head_status = HTTPStatus.REQUEST_URI_TOO_LONG
            raise ValueError("the request's target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header, unless it is a trailer, which comes after the body.

        Raises ValueError, which ends in 431.
        """
        if not self._within_head:
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))
        self._head_size += len(name) + len(value)
        if self._head_size > _MAX_HEAD_BYTES or len(self.headers) > _MAX_HEADERS:
            self._head_status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise ValueError("the request has too many headers, or too large ones")

    def on_headers_complete(self) -> None:
        """Hand the request to the application, which limits the time for its body."""
        self._within_head = False
        self._stop_clock()
        self.config.idle.discard(self)
        raw_path, query = self._target()
        version = self.parser.get_http_version()
        scope: Scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "method": self.parser.get_method().decode("ascii"),
            "path": unquote(raw_path.decode("ascii")),
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
            "state": {**self.app_state, CONNECTION: self},
        }
        app, limit = self.app, self.limit_concurrency
        if limit is not None and max(len(self.connections), len(self.tasks)) >= limit:
            app = service_unavailable
            REFUSED_REQUESTS.labels("overloaded").inc()
            REFUSED.note(ANY_SOURCE)
            self.logger.warning("Exceeded concurrency limit.")
        earlier = self.cycle
        request = WholeRequest(self, scope, keep_alive=version != "1.0" and self.parser.should_keep_alive())
        self.cycle = request
        if earlier is None or earlier.response_complete:
            self._unstarted = request, app
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((request, app))

    def _target(self) -> tuple[bytes, bytes]:
        """Return path and query of the target, which has no fragment (RFC 9112, section 3.2)."""
        path, _, query = self.url.partition(b"?")
        if not path.startswith(b"/"):  # a whole URL, as clients of proxies write it
            url, mark, rest = path.partition(b"#")
            path = httptools.parse_url(url).path + mark + rest
        return path, query

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body, which the application limits."""
        self._beside_the_body -= len(body)
        if self.cycle.message_event is WholeRequest.message_event:
            self.cycle.add(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request; the next one on this connection is counted anew."""
        self._beside_the_body = 0
        self.is_within_message = False
        self._between_messages = True
        self._stop_clock()
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Limit the time for the rest of a request that was answered early, or for the next head."""
        if self.is_within_message:
            self._start_clock()
        self.timeout_keep_alive = self._idle_seconds()
        super().on_response_complete()
        if self._unstarted is not None:
            self.loop.call_soon(self._start)
        if self.cycle.response_complete and not self.transport.is_closing():
            self.config.idle.add(self)

    def _start_asgi_task(self, cycle: WholeRequest, app: Any) -> None:  # type: ignore[override]
        # Not before all that has arrived is parsed: a request that is whole by then may need no task.
        self._unstarted = cycle, app

    def _start(self) -> None:
        """Start the next request, if there is one, without a task where the application takes it."""
        if self._unstarted is None:
            return
        (request, app), self._unstarted = self._unstarted, None
        self._started = request
        # Otherwise another application was chosen, to answer 503.
        may_take = app is self.app and self.config.takes_requests
        # A task waits until an answer can be written.
        if may_take and not request.more_body and not self.flow.write_paused:
            try:
                if app.take(request):
                    return
            except Exception as error:  # noqa: BLE001  a bug: uvicorn logs it and answers 500
                request.fail(error)
                return
        self.start_task(request, app)

    def start_task(self, request: WholeRequest, app: Any) -> None:
        """Have uvicorn answer a request by an application in a task."""
        request.become_task()
        super()._start_asgi_task(request, app)

    def _make_room(self) -> None:
        """Close idle connections while there are too many.

        Uvicorn would answer 503 to every request, also on older connections.
        """
        while self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            idle = self.config.idle.first(exclude=self, limit=self.limit_concurrency)
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
            self._deadline = self.loop.call_later(seconds, self._time_out)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stop_read_clock(self) -> None:
        if self._read_deadline is not None:
            self._read_deadline.cancel()
            self._read_deadline = None

    def _time_out(self) -> None:
        if self._within_head:
            REFUSED_REQUESTS.labels("slow_head").inc()
            self.logger.warning("A request's head did not come within receiver.head_timeout.")
        self.transport.abort()

    def _idle_seconds(self) -> int:
        """Return how long a connection may be idle.

        That is shorter where half of all are taken, so that nobody holds them all by doing nothing.
        """
        crowded = self.limit_concurrency is not None and 2 * len(self.connections) > self.limit_concurrency
        return ceil(self.config.head_timeout) if crowded else self.config.timeout_keep_alive


def _log_other_protocol(data: bytes) -> None:
    why = next((why for beginning, why in _OTHER_PROTOCOLS.items() if data.startswith(beginning)), "")
    if why:
        log.warning("request.refused", reason="bad_http", why=why, throttle=True)
