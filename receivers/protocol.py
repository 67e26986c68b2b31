"""HTTP as uvicorn reads it with httptools, with limits where it has none: on what surrounds a body, and on the time a request may take to come."""

from asyncio import TimerHandle, Transport

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Vendors' request lines and headers take about 1 KiB.
_LARGEST_HEAD = 64 * 1024


class BoundedHttp(HttpToolsProtocol):
    """Closes a connection whose request line, headers or trailers do not end: they would all be kept in memory.

    So it does where they do not come within the time that it may be idle, nor the rest of a body that was answered before it was whole.
    That time does not run while a request before them is handled: until that is answered, we are who is waited for, and may not be reading.
    """

    _beside_the_body = 0
    _within_message = False
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
        super().data_received(data)
        if self._beside_the_body > _LARGEST_HEAD and not self.transport.is_closing():
            self.send_400_response("The request's head is too large.")
        self._start_clock()

    def on_message_begin(self) -> None:
        """Until its end."""
        self._within_message = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The body has a time limit of its own, in the application."""
        self._stop_clock()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """The body has a limit of its own, in the application."""
        self._beside_the_body -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The next request on this connection is counted anew."""
        self._beside_the_body = 0
        self._within_message = False
        self._stop_clock()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """What was refused before it was read must still end, and the head that came meanwhile; the body of a request that waits has a limit of its own."""
        if self._within_message:
            self._start_clock()
        super().on_response_complete()

    def _start_clock(self) -> None:
        answered = self.cycle is None or self.cycle.response_complete
        if answered and self._deadline is None:
            self._deadline = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
