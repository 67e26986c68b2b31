"""A tiny HTTP server that answers as it is told, for what sends webhooks."""

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


class Listener:
    """Gives `answers` to the first POSTs, in order, and `then` to all others. "drop" hangs up, "never" keeps waiting."""

    def __init__(self, answers: Sequence[Answer], then: Answer) -> None:
        self._answers = list(answers)
        self._then = then
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.paths: list[str] = []
        self.deliveries: list[Delivery] = []

    def run(self) -> None:
        """Until `stop`."""
        self._server.serve_forever(poll_interval=0.01)

    def stop(self) -> None:
        """Nobody waits for an answer any more, and nobody listens."""
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def note(self, path: str, delivery: Delivery) -> Answer:
        """What to answer to this one."""
        with self._lock:
            self.paths.append(path)
            self.deliveries.append(delivery)
            return self._answers.pop(0) if self._answers else self._then

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers["content-length"]))
                answer = listener.note(
                    url.path, Delivery(url.query, Headers.of(self.headers.items()), body, datetime.now(UTC))
                )
                if answer == "never":
                    listener.over.wait()
                elif answer != "drop":
                    self.send_response(answer)
                    self.end_headers()

            def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the library's name
                """Not into the tests' output."""

        return Handler


@contextmanager
def listening(*answers: Answer, then: Answer = 202) -> Iterator[Listener]:
    """A listener on a port of its own."""
    listener = Listener(answers, then)
    thread = threading.Thread(target=listener.run)
    thread.start()
    try:
        yield listener
    finally:
        listener.stop()
        thread.join()
