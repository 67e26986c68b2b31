"""The HTTP server of the simulated REST APIs, which checks limits and credentials before any endpoint."""

import asyncio
import threading
import time
from collections import Counter
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

from ingest.simulator.api import ApiError, RateLimit, RateLimiter, SimulatedApi
from ingest.sockets import bind

Fault = Callable[[str, Request], Response | None]


class LostResponse(Enum):
    """How the response of an endpoint that did its work fails to arrive."""

    ERROR = "a 500 is answered in its place"
    SILENCE = "nothing is answered until the client gives up or the server stops"


Loss = Callable[[str, Request], LostResponse | None]


class RestServer:
    """Serves the API of each account below the account's name.

    `requests` counts responses by account and status; a lost response counts as a 500. Both kinds of hooks
    get the account's name and the request: `faults` may respond in the vendor's place, and then nothing is
    done; `losses` may lose the response of an endpoint after it did its work.
    """

    def __init__(
        self,
        apis: Mapping[str, SimulatedApi],
        limits: Mapping[str, RateLimit] | None = None,
        address_limits: Mapping[str, RateLimit] | None = None,
        port: int = 0,
    ) -> None:
        """Take `limits` by account, and `address_limits` by vendor, which its accounts share.

        Port 0 is a free one, known while serving.
        """
        self.apis = apis
        self.faults: list[Fault] = []
        self.losses: list[Loss] = []
        self.requests: Counter[tuple[str, int]] = Counter()
        self._limiters = {name: RateLimiter((limits or {}).get(name)) for name in apis}
        self._address_limiters = {
            vendor: RateLimiter(limit) for vendor, limit in (address_limits or {}).items()
        }
        self.app = Starlette(
            routes=[
                Mount(f"/{name}{api.base_path}", app=self._guard(name, api)) for name, api in apis.items()
            ]
        )
        self.port = port
        self._stopping = threading.Event()

    def api_url(self, account: str) -> str:
        """Return the value of the account's setting `api_url`, known while serving."""
        api = self.apis[account]
        return f"http://127.0.0.1:{self.port}/{account}{api.base_path}{api.api_path}"

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve on loopback from another thread. Raises ConfigurationError when the port is taken."""
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

    def _guard(self, name: str, api: SimulatedApi) -> ASGIApp:
        """Return an app that checks limits and credentials before the endpoints, and counts responses."""

        async def error_response(_: Request, error: Exception) -> Response:
            return cast("ApiError", error).response

        async def not_found(_: Request, __: Exception) -> Response:
            return api.not_found()

        endpoints = Starlette(
            routes=list(api.routes()),
            exception_handlers={ApiError: error_response, 404: not_found, 405: not_found},
        )

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_and_count(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self.requests[name, message["status"]] += 1
                    headers = MutableHeaders(scope=message)
                    for key, value in api.headers(self._limiters[name]).items():
                        headers.setdefault(key, value)
                await send(message)

            request = Request(scope, receive)
            response: ASGIApp | None = self._refusal(name, api, request)
            if response is None:
                losses = (loss(name, request) for loss in self.losses)
                loss = next(filter(None, losses), None)
                response = self._losing(endpoints, loss) if loss else endpoints
            await response(scope, receive, send_and_count)

        return app

    def _losing(self, endpoints: ASGIApp, loss: LostResponse) -> ASGIApp:
        """Return an app that does what the endpoints do, and loses their response."""

        async def discard(_: Message) -> None:
            pass

        async def disconnection(receive: Receive) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await endpoints(scope, receive, discard)
            if loss is LostResponse.SILENCE:
                ends = (disconnection(receive), asyncio.to_thread(self._stopping.wait))
                await asyncio.wait(map(asyncio.ensure_future, ends), return_when=asyncio.FIRST_COMPLETED)
            await Response(status_code=500)(scope, receive, send)

        return app

    def _refusal(self, name: str, api: SimulatedApi, request: Request) -> Response | None:
        """Return the response to a request that must not reach an endpoint, or None."""
        for fault in self.faults:
            if response := fault(name, request):
                return response
        for limiter in filter(None, (self._limiters[name], self._address_limiters.get(api.vendor))):
            if (seconds := limiter.take()) is not None:
                return api.too_many(seconds)
        return None if api.is_public(request) or api.is_authentic(request) else api.unauthorized()
