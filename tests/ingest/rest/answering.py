"""A server that gives the answers that a test sets, in their order."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ingest.simulator.api import json_response
from ingest.sockets import bind

Answer = Callable[[Request], Response]


def told(body: object, status: int = 200, **headers: str) -> Answer:
    """Return an answer with this JSON; a header is named as `Retry_After`."""
    return lambda _: json_response(
        body, status, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def raw(content: bytes, status: int = 200, **headers: str) -> Answer:
    """Return an answer with these bytes as they are; a header is named as `Retry_After`."""
    return lambda _: Response(
        content, status, {name.replace("_", "-"): value for name, value in headers.items()}
    )


class Answers:
    """The server.

    `answers` are given in order, the last one again and again. `asked` are the requests, with method, path,
    query and headers; `bodies` are their bodies.
    """

    def __init__(self) -> None:
        self.answers: list[Answer] = [told({})]
        self.asked: list[Request] = []
        self.bodies: list[bytes] = []
        self._lock = threading.Lock()
        self._sock = bind("127.0.0.1", 0, "port for a test")
        self.url = f"http://127.0.0.1:{self._sock.getsockname()[1]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        with self._lock:
            self.asked.append(request)
            self.bodies.append(body)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await answer(request)(scope, receive, send)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve in a thread of its own, until the context is left."""
        server = uvicorn.Server(
            uvicorn.Config(self, log_config=None, access_log=False, lifespan="off", ws="none")
        )
        thread = threading.Thread(target=server.run, args=([self._sock],), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.should_exit = server.force_exit = True
            thread.join()
