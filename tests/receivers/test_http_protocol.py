"""The HTTP protocol over a transport of the test, with an application that answers when the test wants."""

import asyncio
from collections.abc import Callable

from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from receivers.http_protocol import BoundedHttp, HttpConfig
from receivers.http_request import WholeRequest
from tests.receivers.requests import booking, raw

_HEAD_SECONDS = 0.05
_TURNS = 1000


class _Transport(asyncio.Transport):
    """A transport that keeps what is written, and fails as uvloop's does where nobody can get it."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.is_closed, self.aborted = b"", False, asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_closed:
            raise RuntimeError("unable to perform operation on a closed handle")
        self.written += data

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True
        self.aborted.set()

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class _Application:
    """An application that answers by a task, and whole requests at once or when the test wants."""

    def __init__(self) -> None:
        self.answers_at_once = True
        self.taken: list[WholeRequest] = []
        self.bodies: list[bytes] = []

    def take(self, request: WholeRequest) -> bool:
        self.taken.append(request)
        self.bodies.append(bytes(request.body))
        if self.answers_at_once:
            request.answer(202)
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


class _Server:
    """Connections to one application."""

    def __init__(self) -> None:
        self.app = _Application()
        options = {"log_config": None, "access_log": False, "proxy_headers": False, "ws": "none"}
        self.config = HttpConfig(self.app, head_timeout=_HEAD_SECONDS, **options)
        self.config.load()
        self.state = ServerState()

    def connect(self) -> tuple[BoundedHttp, _Transport]:
        protocol, transport = BoundedHttp(self.config, self.state, {}), _Transport()
        protocol.connection_made(transport)
        return protocol, transport


async def _turns_until(is_so: Callable[[], bool]) -> None:
    for _ in range(_TURNS):
        if is_so():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come to that")


def test_a_client_that_is_gone_with_requests_waiting_makes_no_answer_fail() -> None:
    async def run() -> None:
        server = _Server()
        server.app.answers_at_once = False
        protocol, transport = server.connect()
        protocol.data_received(raw(booking(1)) + raw(booking(2)))
        await _turns_until(lambda: len(server.app.taken) == 1)
        transport.close()
        protocol.connection_lost(None)
        server.app.taken[0].answer(202)
        assert transport.written == b""

    asyncio.run(run())


def test_many_requests_on_a_connection_do_not_hold_up_another_connection() -> None:
    async def run() -> None:
        server = _Server()
        (many, _), (single, _) = server.connect(), server.connect()
        many.data_received(raw(booking(1)) * 100)
        single.data_received(raw(booking(2)))
        await _turns_until(lambda: len(server.app.taken) == 101)
        assert booking(2).body in server.app.bodies[:2]

    asyncio.run(run())


def test_a_client_that_reads_no_answers_gets_no_more_of_them_until_it_does() -> None:
    async def run() -> None:
        server = _Server()
        protocol, transport = server.connect()
        protocol.pause_writing()
        protocol.data_received(raw(booking(1)) * 3)
        for _ in range(20):
            await asyncio.sleep(0)
        assert transport.written == b""
        protocol.resume_writing()
        await _turns_until(lambda: transport.written.count(b"HTTP/1.1 202 ") == 3)

    asyncio.run(run())


def test_a_client_that_reads_no_answers_for_long_is_disconnected() -> None:
    async def run() -> None:
        server = _Server()
        server.config.takes_requests = False
        protocol, transport = server.connect()
        protocol.pause_writing()
        protocol.data_received(raw(booking(1)))  # its task waits until it can write the answer
        async with asyncio.timeout(30):
            await transport.aborted.wait()
        protocol.connection_lost(None)

    asyncio.run(run())


def test_an_idle_connection_keeps_no_body() -> None:
    async def run() -> None:
        server = _Server()
        protocol, transport = server.connect()
        protocol.data_received(raw(booking(1)))
        await _turns_until(lambda: transport.written.startswith(b"HTTP/1.1 202 "))
        assert not protocol.cycle.body
        assert server.app.bodies == [booking(1).body]

    asyncio.run(run())
