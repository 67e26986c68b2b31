"""The admin listener, with readiness and metrics, on loopback or protected by a token."""

import hmac
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ingest.address import is_ip, is_loopback, parse_address
from ingest.errors import ConfigurationError
from ingest.readiness import Finding, Probe, Readiness, readiness_body
from ingest.settings import ConsumerSettings, ReceiverSettings, ReconcileSettings
from ingest.sockets import bind

Listener = ReceiverSettings | ConsumerSettings | ReconcileSettings

_ANY_PORT = 80
_MISDIRECTED = 421


def build_admin(ready: Callable[[], Sequence[Finding]], token: SecretStr | None) -> Starlette:
    """Build the application; `ready` returns its findings.

    With a token, callers need `Authorization: Bearer <token>`.
    """

    def guarded(request: Request, answer: Callable[[], Response]) -> Response:
        expected = f"Bearer {token.get_secret_value()}".encode() if token else b""
        if token and not hmac.compare_digest(request.headers.get("authorization", "").encode(), expected):
            return PlainTextResponse(
                "give the admin token as a bearer token\n", 401, {"WWW-Authenticate": "Bearer"}
            )
        return answer()

    def readyz(request: Request) -> Response:
        def answer() -> Response:
            body = readiness_body(ready())
            return JSONResponse(body, 200 if body["ready"] else 503)

        return guarded(request, answer)

    def metrics(request: Request) -> Response:
        return guarded(request, lambda: Response(generate_latest(registry()), media_type=CONTENT_TYPE_LATEST))

    app = Starlette(routes=[Route("/readyz", readyz), Route("/metrics", metrics)])
    app.router.redirect_slashes = False  # a redirect would go to whatever host the caller named
    return app


def serve_admin(settings: Listener, section: str, probes: Mapping[str, Probe]) -> int:
    """Serve from a thread until the process ends, and return the port.

    Raises ConfigurationError when other machines could reach the listener without a token.
    """
    host, port, token = settings.admin_host, settings.admin_port, settings.admin_token
    check_admin(settings, section)
    config = uvicorn.Config(
        AllowedHosts(
            build_admin(Readiness(probes).findings, token),
            [host, *settings.admin_hosts],
            f"{section}.admin_hosts",
        ),
        host=host,
        port=port,
        http="h11",  # bounds what it reads of a request's head, and is quick enough here
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    sock = bind(host, port, f"{section}.admin_port")
    threading.Thread(target=uvicorn.Server(config).run, args=([sock],), name="admin", daemon=True).start()
    bound_port: int = sock.getsockname()[1]
    return bound_port


def check_admin(settings: Listener, section: str) -> None:
    """Raise ConfigurationError when other machines could reach the listener without a token."""
    if not settings.admin_token and not is_loopback(settings.admin_host):
        raise ConfigurationError(
            f"the admin listener on {settings.admin_host} needs {section}.admin_token: set it, or use"
            f" {section}.admin_host = 127.0.0.1"
        )


def registry() -> CollectorRegistry:
    """Return the metrics of this process, or of all workers that share a folder for them."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    # Gauges of killed workers are out of date; their counters stay.
    gauges = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob("gauge_live*.db")
    for pid in {int(file.stem.rpartition("_")[2]) for file in gauges}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid)  # type: ignore[no-untyped-call]  # the library has no annotation here
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library has no annotation here
    return registry


class AllowedHosts:
    """ASGI middleware that answers 421 to a request for another host name.

    IP addresses are allowed: nobody can make one point here, and probes use them.
    """

    def __init__(self, app: ASGIApp, names: Collection[str], setting: str) -> None:
        """Allow `names`; the answer to others names `setting` as the one to add a host name to."""
        self._app, self._names = app, {"localhost", *map(_normalized, names)}
        self._refusal = PlainTextResponse(
            f"the host name in the URL is not allowed here: add it to {setting}\n", _MISDIRECTED
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request for an allowed host; HTTP/1.0 may leave the host out, which no browser does."""
        if scope["type"] != "http" or all(map(self._is_allowed, Headers(scope=scope).getlist("host"))):
            await self._app(scope, receive, send)
        else:
            await self._refusal(scope, receive, send)

    def _is_allowed(self, host: str) -> bool:
        try:
            name = parse_address(host, _ANY_PORT).host
        except ValueError:
            return False
        return is_ip(name) or _normalized(name) in self._names


def _normalized(name: str) -> str:
    return name.lower().removesuffix(".")
