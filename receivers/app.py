"""The public application: webhooks and a liveness answer, nothing else."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import unquote, urlsplit

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from ingest.errors import ConfigurationError
from ingest.log import Producer
from ingest.log_probes import probe_records
from ingest.settings import NO_ACCOUNT, Settings
from ingest.settings.environment import variable_name
from ingest.settings.live import LiveAccounts
from ingest.settings.sources import load_settings, watched_paths
from ingest.telemetry import configure_logging
from ingest.vendors import AnyAccount
from receivers.refusals import Refusals
from receivers.site import SITE_HEADER, site_of
from receivers.spool.folder import open_spooling
from receivers.unacknowledged import WatchedProducer
from receivers.webhook import Webhooks

log = structlog.get_logger()

RISK_OF_SHARING = "whoever can send to one of them can send its deliveries to the others; give each a webhook secret of its own"


def create_app(settings: Settings | None = None) -> Starlette:
    """For uvicorn workers: these settings, or those of INGEST_CONFIG and the environment; accounts change with the files.

    Raises ConfigurationError, LogUnavailable.
    """
    configure_logging("receiver")
    settings = settings or load_settings()
    accounts = LiveAccounts(
        lambda: with_secrets(load_settings()), watched_paths(), first=with_secrets(settings)
    )
    return build_app(settings, accounts, open_spooling(settings))


def ready_accounts(settings: Settings) -> Mapping[tuple[str, str], AnyAccount]:
    """Every account; raises ConfigurationError where one has no webhook secret: it could not tell friend from forger."""
    if not settings.accounts:
        raise ConfigurationError(NO_ACCOUNT)
    bare = [name for name, account in settings.accounts.items() if not account.live_secrets()]
    if bare:
        variables = ", ".join(variable_name("accounts", name, "webhook_secrets") for name in bare)
        raise ConfigurationError(
            f"no webhook secret for account {', '.join(bare)}: set {variables}, or webhook_secrets in the secrets file"
        )
    for names in settings.sharing_secrets():
        log.warning("accounts.same_secret", accounts=names, why=RISK_OF_SHARING)
    return settings.build_accounts()


def with_secrets(settings: Settings) -> Mapping[tuple[str, str], AnyAccount]:
    """For a worker, which may start long after the receiver did: an account without a webhook secret is left out, so that it does not hold up the others.

    Raises ConfigurationError where all are: a file that was emptied is more likely than a wish to take nothing any more.
    """
    bare = [name for name, account in settings.accounts.items() if not account.live_secrets()]
    if len(bare) == len(settings.accounts):
        return ready_accounts(settings)
    if bare:
        log.warning("accounts.left_out", accounts=bare, why="no webhook secret")
    return {key: account for key, account in settings.build_accounts().items() if account.name not in bare}


def build_app(
    settings: Settings, accounts: Mapping[tuple[str, str], AnyAccount], producer: Producer
) -> Starlette:
    """Routes over a producer that is closed, after a flush, when the application stops."""
    watched = WatchedProducer(producer, settings.audit_topic, partial(probe_records, settings))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        watched.watch()
        yield
        await asyncio.to_thread(watched.close)

    public_path = _decoded(urlsplit(settings.public_url).path).rstrip("/")
    webhooks, refusals = Webhooks(settings, accounts, watched), Refusals(accounts, public_path)
    routes = [
        Route("/webhooks/{vendor}/{account}", webhooks.endpoint, methods=["POST"]),
        Route("/healthz", _alive(site_of(settings))),
    ]
    app = Starlette(
        routes=[*routes, *_below(public_path, routes)],
        middleware=[Middleware(PathsAsSent)],
        exception_handlers={404: refusals.answer, 405: refusals.answer},
        lifespan=lifespan,
        max_body_size=settings.receiver.body_limit,
    )
    app.router.redirect_slashes = False  # a redirect would go to whatever host the caller named
    return app


class PathsAsSent:
    """Routes by the path in which an encoded slash is no slash: proxies and their rules see one segment where `unquote` makes two."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`raw_path` is what was sent."""
        if scope["type"] == "http":
            scope["path"] = _decoded(scope["raw_path"].decode("latin-1"))
        await self._app(scope, receive, send)


def _decoded(path: str) -> str:
    """Percent signs decoded, but for those of slashes (RFC 3986, section 2.2)."""
    return "%2F".join(map(unquote, re.split("%2f", path, flags=re.IGNORECASE)))


def _below(public_path: str, routes: Sequence[BaseRoute]) -> list[Mount]:
    """The same routes once more for proxies that pass on the path of `public_url`; others strip it."""
    return [Mount(public_path, app=Router(routes, redirect_slashes=False))] if public_path else []


def _alive(site: str) -> Callable[[Request], Awaitable[Response]]:
    """Who asks for it, as `ingest check` does through the public URL, is told whose receiver this is."""

    async def alive(request: Request) -> Response:
        return PlainTextResponse(
            "ok\n", headers={SITE_HEADER: site} if SITE_HEADER in request.headers else None
        )

    return alive
