"""The application of the dashboard: its pages, its API, and the rules for who may call them."""

import signal

import anyio
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ingest.address import is_loopback
from ingest.admin import AllowedHosts
from ingest.dashboard import (
    accounts,
    api,
    bookings,
    home,
    letters,
    live,
    reconciliations,
    subscriptions,
    tables,
    work,
)
from ingest.dashboard.jobs import Jobs
from ingest.dashboard.page import Dashboard, json_response, render, status_of
from ingest.dashboard.security import Guard, read_form
from ingest.dashboard.watch import HealthWatch
from ingest.errors import ConfigurationError, IngestError
from ingest.service_manager import exit_cleanly, notify_ready
from ingest.settings import Settings
from ingest.settings.sources import Live, load_settings, watched_paths
from ingest.sockets import bind

log = structlog.get_logger()

_SECTIONS = (home, accounts, bookings, live, letters, reconciliations, subscriptions, work, tables)
_STOP_SECONDS = 5


def build_app(settings: Settings) -> ASGIApp:
    """Build the application, with the rules for who may call it around everything else.

    `settings` are those of the start; the pages show what their files say later.
    """
    live = Live(load_settings, watched_paths(), first=settings)
    dashboard = Dashboard(live, HealthWatch(live.current), Jobs())
    routes: list[Route | Mount] = [
        Route("/healthz", _healthz),
        Route("/login", _login_page, methods=["GET"]),
        Route("/login", _log_in, methods=["POST"]),
        Mount("/static", StaticFiles(packages=[("ingest.dashboard", "static")])),
        *api.routes(settings),
        *(route for section in _SECTIONS for page in section.pages() for route in page.routes()),
        *(route for section in _SECTIONS for route in section.actions()),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={IngestError: _show_error, HTTPException: _show_http_error, Exception: _show_bug},
    )
    app.router.redirect_slashes = False  # a redirect would go to whatever host the caller named
    app.state.dashboard = dashboard
    hosts = [settings.dashboard.host, *settings.dashboard.hosts]
    return Guard(AllowedHosts(app, hosts, "dashboard.hosts"), settings.dashboard.token)


def check_dashboard(settings: Settings) -> None:
    """Raise ConfigurationError when other machines could reach the dashboard without a token."""
    dashboard = settings.dashboard
    if not dashboard.token and not is_loopback(dashboard.host):
        raise ConfigurationError(
            f"the dashboard on {dashboard.host} needs dashboard.token, because it shows customers' data:"
            " set INGEST_DASHBOARD__TOKEN, for example to what `openssl rand -hex 32` prints, or use"
            " dashboard.host = 127.0.0.1"
        )


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigurationError where it cannot listen, or not safely."""
    check_dashboard(settings)
    host, port = settings.dashboard.host, settings.dashboard.port
    sock = bind(host, port, "dashboard.port")
    log.info("dashboard.listening", url=f"http://{host}:{sock.getsockname()[1]}/")
    config = uvicorn.Config(
        build_app(settings),
        http="h11",  # bounds what it reads of a request's head, and is quick enough here
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    signal.signal(signal.SIGTERM, exit_cleanly)
    notify_ready()
    uvicorn.Server(config).run([sock])


async def _healthz(request: Request) -> Response:
    del request
    return PlainTextResponse("ok\n")


def _login_page(request: Request) -> Response:
    return render(request, "login.html", {"title": "Log in", "wrong": False})


async def _log_in(request: Request) -> Response:
    fields = await read_form(request)
    guard: Guard = request.scope["guard"]
    cookie = guard.log_in(request, next(iter(fields.get("token", [])), ""))
    if cookie is None:
        await anyio.sleep(1)  # so that tokens cannot be tried quickly
        return render(request, "login.html", {"title": "Log in", "wrong": True}, 401)
    response = RedirectResponse("/", 303)
    response.headers.append("set-cookie", cookie)
    return response


def _show_error(request: Request, error: Exception) -> Response:
    status = status_of(error) if isinstance(error, IngestError) else 500
    return _error_response(request, str(error), status)


def _show_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise TypeError("this handles HTTPException only")
    detail = "there is no such page" if error.status_code == 404 else error.detail  # noqa: PLR2004 - as HTTP says
    return _error_response(request, detail, error.status_code)


def _show_bug(request: Request, error: Exception) -> Response:
    log.error("dashboard.crashed", path=request.url.path, exc_info=error)
    return _error_response(request, "a bug of ours: its place is in the dashboard's log", 500)


def _error_response(request: Request, why: str, status: int) -> Response:
    if request.url.path.endswith((".json", ".csv")) or request.url.path.startswith("/api/"):
        return json_response({"error": why}, status)
    return render(request, "error.html", {"title": "Error", "error": why}, status)
