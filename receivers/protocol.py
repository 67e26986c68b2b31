"""HTTP as uvicorn reads it with httptools, with a limit on what surrounds a body, where httptools has none."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Vendors' request lines and headers take about 1 KiB.
_LARGEST_HEAD = 64 * 1024


class BoundedHttp(HttpToolsProtocol):
    """Closes a connection whose request line, headers or trailers do not end: they would all be kept in memory."""

    _beside_the_body = 0

    def data_received(self, data: bytes) -> None:
        """As uvicorn's; what may be kept is the limit and one read from the socket."""
        self._beside_the_body += len(data)
        super().data_received(data)
        if self._beside_the_body > _LARGEST_HEAD and not self.transport.is_closing():
            self.send_400_response("The request's head is too large.")

    def on_body(self, body: bytes) -> None:
        """The body has a limit of its own, in the application."""
        self._beside_the_body -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The next request on this connection is counted anew."""
        self._beside_the_body = 0
        super().on_message_complete()
