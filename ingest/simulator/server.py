"""The HTTP server of the simulated vendors: one mount per account, limits and credentials checked before any endpoint."""

import asyncio
import threading
import time
from collections import Counter as Count
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import cast

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingest.simulator.api import Allowed, Answered, Counter, RestDialect
from ingest.sockets import bind

Fault = Callable[[str, Request], Response | None]


class Lost(Enum):
    """An answer that does not arrive, of an endpoint that did its work."""

    ERROR = "a 500 is answered in its place"
    SILENCE = "nothing is, until the client gives up or the server stops"


Loss = Callable[[str, Request], Lost | None]


class RestServer:
    """`requests` counts answers by account and status.

    `faults` may answer in the vendor's stead, by account and request, and then nothing is done. `losses` let the vendor do
    what it was asked for, and then may lose its answer; they are asked only of requests that reach an endpoint. A lost
    answer counts as a 500.
    """

    def __init__(
        self,
        accounts: Mapping[str, RestDialect],
        limits: Mapping[str, Allowed] | None = None,
        address_limits: Mapping[str, Allowed] | None = None,
        port: int = 0,
    ) -> None:
        """`limits` by account; `address_limits` by vendor, shared by its accounts. Port 0 is a free one, known while serving."""
        self.accounts = accounts
        self.faults: list[Fault] = []
        self.losses: list[Loss] = []
        self.requests: Count[tuple[str, int]] = Count()
        self._limits = {name: Counter((limits or {}).get(name)) for name in accounts}
        self._address_limits = {
            vendor: Counter(allowed) for vendor, allowed in (address_limits or {}).items()
        }
        self.app = Starlette(
            routes=[
                Mount(f"/{name}{account.base_path}", app=self._guarded(name, account))
                for name, account in accounts.items()
            ]
        )
        self.port = port
        self._stopping = threading.Event()

    def api_url(self, account: str) -> str:
        """What the account's `api_url` is to be, while serving."""
        return f"http://127.0.0.1:{self.port}/{account}{self.accounts[account].base_path}{self.accounts[account].api_path}"

    @contextmanager
    def serving(self) -> Iterator[None]:
        """In a thread of its own, on loopback. Raises ConfigurationError when the port is taken."""
        sock = bind("127.0.0.1", self.port, "port for the simulated vendors")
        self.port = sock.getsockname()[1]
        self._stopping.clear()
        server = uvicorn.Server(
            uvicorn.Config(self.app, log_config=None, access_log=False, lifespan="off", ws="none")
        )
        thread = threading.Thread(target=server.run, args=([sock],), name="vendors", daemon=True)
        thread.start()
        while thread.is_alive() and not server.started:
            time.sleep(0.005)
        try:
            yield
        finally:
            self._stopping.set()
            server.should_exit = True
            thread.join()

    def _guarded(self, name: str, account: RestDialect) -> ASGIApp:
        inner = _endpoints(account)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_on(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self.requests[name, message["status"]] += 1
                    headers = MutableHeaders(scope=message)
                    for key, value in account.headers(self._limits[name]).items():
                        headers.setdefault(key, value)
                await send(message)

            request = Request(scope, receive)
            answer: ASGIApp | None = self._instead(name, account, request)
            if answer is None:
                answer = self._losing(
                    inner, next(filter(None, (loss(name, request) for loss in self.losses)), None)
                )
            await answer(scope, receive, send_on)

        return app

    def _losing(self, inner: ASGIApp, lost: Lost | None) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await inner(scope, receive, _nowhere)
            if lost is Lost.SILENCE:
                ends = (_given_up(receive), asyncio.to_thread(self._stopping.wait))
                await asyncio.wait(map(asyncio.ensure_future, ends), return_when=asyncio.FIRST_COMPLETED)
            await Response(status_code=500)(scope, receive, send)

        return app if lost else inner

    def _instead(self, name: str, account: RestDialect, request: Request) -> Response | None:
        """What is answered without asking an endpoint: a fault, or the refusal of one request too many, or of a credential."""
        for fault in self.faults:
            if response := fault(name, request):
                return response
        for counter in filter(None, (self._limits[name], self._address_limits.get(account.vendor))):
            if (seconds := counter.take()) is not None:
                return account.too_many(seconds)
        return None if account.is_open(request) or account.authentic(request) else account.unauthorized()


async def _nowhere(_: Message) -> None:
    """What is sent here is lost."""


async def _given_up(receive: Receive) -> None:
    """Until the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _endpoints(account: RestDialect) -> Starlette:
    async def answered(_: Request, error: Exception) -> Response:
        return cast("Answered", error).response

    async def missing(_: Request, __: Exception) -> Response:
        return account.missing()

    return Starlette(
        routes=list(account.routes()), exception_handlers={Answered: answered, 404: missing, 405: missing}
    )
