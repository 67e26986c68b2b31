"""An HTTP server that answers webhooks as a test wants it to."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

from ingest.vendors.delivery import Delivery, Headers

Answer = int | Literal["drop", "never"]


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # more than are ever sent at once


class FakeReceiver:
    """Gives `answers` to the first POSTs, in order, and `then` to all others.

    An answer is a status; "drop" closes the connection, and "never" does not answer.
    """

    def __init__(self, answers: Sequence[Answer], then: Answer) -> None:
        self._answers = list(answers)
        self._then = then
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.stopped = threading.Event()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.paths: list[str] = []
        self.deliveries: list[Delivery] = []

    def run(self) -> None:
        """Serve until `stop` is called."""
        self._server.serve_forever(poll_interval=0.01)

    def stop(self) -> None:
        """Release the connections that wait for an answer, and close the port."""
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def record(self, path: str, delivery: Delivery) -> Answer:
        """Record a delivery and return the answer to it."""
        with self._lock:
            self.paths.append(path)
            self.deliveries.append(delivery)
            return self._answers.pop(0) if self._answers else self._then

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = Headers.of(self.headers.items())
                answer = receiver.record(url.path, Delivery(url.query, headers, body, datetime.now(UTC)))
                if answer == "never":
                    receiver.stopped.wait()
                elif answer != "drop":
                    self.send_response(answer)
                    self.end_headers()

            def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the library's name
                """Write nothing to the tests' output."""

        return Handler


@contextmanager
def fake_receiver(*answers: Answer, then: Answer = 202) -> Iterator[FakeReceiver]:
    """Run a receiver on a port of its own."""
    receiver = FakeReceiver(answers, then)
    thread = threading.Thread(target=receiver.run)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.stop()
        thread.join()
