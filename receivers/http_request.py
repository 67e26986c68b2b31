"""A request over HTTP, which is answered in a task as uvicorn does it, or without one."""

from asyncio import Event
from functools import partial
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

if TYPE_CHECKING:
    from receivers.http_protocol import BoundedHttp

CONNECTION = "connection"
"""The name of a request's connection in the state of its scope."""


def note_verified(scope: Scope) -> None:
    """Note that the connection of this request has brought a verified delivery, so it is closed last."""
    if connection := scope.get("state", {}).get(CONNECTION):
        connection.has_delivered = True


class WholeRequest(RequestResponseCycle):
    """A request, and the way to answer it without a task of its own once it has arrived whole.

    What uvicorn needs for a task is made with the task.
    """

    scope: Scope  # type: ignore[assignment]  # uvicorn has a type of its own for it
    body: bytes | bytearray  # type: ignore[assignment]  # mostly it comes in one piece, which is not copied
    disconnected = response_started = response_complete = False
    more_body = True
    message_event = Event()  # nobody waits for this one

    def __init__(self, connection: "BoundedHttp", scope: Scope, *, keep_alive: bool) -> None:
        self.scope, self.body, self.keep_alive = scope, b"", keep_alive
        self._connection = connection
        self.waiting_for_100_continue = connection.expect_100_continue

    def add(self, body: bytes) -> None:
        """Add a piece of the body."""
        if not self.body:
            self.body = body
            return
        if isinstance(self.body, bytes):
            self.body = bytearray(self.body)
        self.body += body

    def answer(self, status: int, headers: bytes = b"") -> None:
        """Send an answer without a body. `headers` are lines with their ends."""
        connection = self._connection
        self.body = b""  # an idle connection keeps its last request
        if self.disconnected or connection.transport.is_closing():
            return
        lines = b"" if self.keep_alive else b"connection: close\r\n"
        for name, value in connection.server_state.default_headers:
            lines += b"%b: %b\r\n" % (name, value)
        connection.transport.write(b"%b%b%bcontent-length: 0\r\n\r\n" % (STATUS_LINE[status], lines, headers))
        self.response_started = self.response_complete = True
        if not self.keep_alive:
            connection.transport.close()
        connection.on_response_complete()

    def fail(self, error: Exception) -> None:
        """Log an error that is a bug, and answer 500 unless there was an answer."""
        self._connection.start_task(self, partial(_fail, error))

    def become_task(self) -> None:
        """Make what uvicorn needs to run an application in a task."""
        connection, so_far = self._connection, {**vars(self), "body": bytearray(self.body)}
        super().__init__(
            scope=self.scope,  # type: ignore[arg-type]  # as above
            transport=connection.transport,
            flow=connection.flow,
            logger=connection.logger,
            access_logger=connection.access_logger,
            access_log=connection.access_log,
            default_headers=connection.server_state.default_headers,
            message_event=Event(),
            expect_100_continue=self.waiting_for_100_continue,
            keep_alive=self.keep_alive,
            on_response=connection.on_response_complete,
        )
        vars(self).update(so_far)
        if self.body or not self.more_body:
            self.message_event.set()


@runtime_checkable
class TakesWholeRequests(Protocol):
    """An application that may take a request without a task."""

    def take(self, request: WholeRequest) -> bool:
        """Take a request, which is then answered some time. Returns False to leave it to a task."""


async def _fail(error: Exception, _scope: Scope, _receive: Receive, _send: Send) -> None:
    raise error
