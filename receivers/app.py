"""The public application: the webhook endpoint and a liveness answer, nothing else."""

import asyncio
import gc
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from ingest.disks import watch_disks
from ingest.log import PolledProducer
from ingest.log_probes import probe_records
from ingest.settings import Settings
from ingest.settings.sources import load_settings, watched_paths
from ingest.telemetry import configure_logging
from ingest.traces import open_traces
from ingest.vendors import AnyAccount
from receivers.accounts import Accounts, ReloadingAccounts, accounts_with_secrets
from receivers.http_request import WholeRequest
from receivers.life import LifeReporter
from receivers.refusals import Refusals
from receivers.spool.folder import open_producer, spool_id
from receivers.unacknowledged import WatchedProducer
from receivers.webhook import Webhooks, count_from_zero

# The header by which `ingest check` recognises a receiver of its own installation behind the public URL.
SITE_HEADER = "x-ingest-site"

_GARBAGE_THRESHOLD = 20_000  # objects between two searches for those that only refer to each other


def create_app(settings: Settings | None = None) -> Starlette:
    """Create the application of a worker, by these settings or those of INGEST_CONFIG and the environment.

    Its accounts change with the files. Raises ConfigurationError, LogUnavailable.
    """
    configure_logging("receiver")
    settings = settings or load_settings()

    def read_accounts(current: Settings) -> Accounts:
        accounts = accounts_with_secrets(current)
        count_from_zero(accounts)
        return accounts

    accounts = ReloadingAccounts(
        lambda: read_accounts(load_settings()), watched_paths(), first=read_accounts(settings)
    )
    watch_disks(settings.store_folders())
    return build_app(settings, accounts, open_producer(settings))


def build_app(settings: Settings, accounts: Accounts, producer: PolledProducer) -> "ReceiverApp":
    """Build the application over a producer, which is flushed and closed when the application stops."""
    traces = open_traces(settings, "receiver")
    watched = WatchedProducer(producer, settings.audit_topic, partial(probe_records, settings))
    life = LifeReporter(watched, settings.audit_topic, spool_id(settings) if settings.uses_spool else "")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        watched.watch()
        await asyncio.to_thread(life.start)
        # What is there by now stays: without looking at it again and again, deliveries take less time. Nor is
        # it worth while to look at each delivery's objects, hundreds of which are there at a time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GARBAGE_THRESHOLD)
        yield
        await asyncio.to_thread(life.close)
        await asyncio.to_thread(watched.close)
        if traces:
            await asyncio.to_thread(traces.close)

    async def answer_health(request: Request) -> Response:
        # Only a request that asks for it, as `ingest check` does through the public URL, is told whose
        # receiver this is.
        headers = {SITE_HEADER: site} if SITE_HEADER in request.headers else None
        return PlainTextResponse("ok\n", headers=headers)

    site = site_of(settings)
    public_path = _decode_path(urlsplit(settings.public_url).path).rstrip("/")
    webhooks, refusals = Webhooks(settings, accounts, watched, traces), Refusals(accounts, public_path)
    routes = [
        Route("/webhooks/{vendor}/{account}", webhooks, methods=["POST"]),
        Route("/healthz", answer_health),
    ]
    # Once more below the path of `public_url`, for proxies that do not strip it.
    mounts = [Mount(public_path, app=Router(routes, redirect_slashes=False))] if public_path else []
    app = ReceiverApp(
        webhooks,
        public_path,
        routes=[*routes, *mounts],
        middleware=[Middleware(PathsAsSent)],
        exception_handlers={404: refusals.answer, 405: refusals.answer},
        lifespan=lifespan,
        max_body_size=settings.receiver.body_limit,
    )
    app.router.redirect_slashes = False  # a redirect would go to whatever host the caller named
    return app


class ReceiverApp(Starlette):
    """An application that takes deliveries past its middleware and routes, which cost as much as the rest.

    They get every other request, also deliveries whose path is written in another way.
    """

    def __init__(self, webhooks: Webhooks, public_path: str, **options: Any) -> None:
        super().__init__(**options)
        self._webhooks = webhooks
        self._prefixes = {"/webhooks", f"{public_path}/webhooks"}

    def take(self, request: WholeRequest) -> bool:
        """Answer a delivery that has arrived whole."""
        if account := self._account(request.scope):
            self._webhooks.take(account, request)
        return account is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and (account := self._account(scope)):
            await self._webhooks.answer(account, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def _account(self, scope: Scope) -> AnyAccount | None:
        """Return the account that a request is delivered to; None for any other request."""
        if scope["method"] != "POST":
            return None
        path, _, name = scope["raw_path"].decode("latin-1").rpartition("/")
        prefix, _, vendor = path.rpartition("/")
        return self._webhooks.account(vendor, name) if prefix in self._prefixes else None


class PathsAsSent:
    """Middleware that keeps encoded slashes in the path.

    Proxies and their rules see one segment where `unquote` makes two.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Set the path from `raw_path`, which is what was sent."""
        if scope["type"] == "http":
            scope["path"] = _decode_path(scope["raw_path"].decode("latin-1"))
        await self._app(scope, receive, send)


def _decode_path(path: str) -> str:
    """Decode the percent signs of a path, except those of slashes (RFC 3986, section 2.2)."""
    return "%2F".join(map(unquote, re.split("%2f", path, flags=re.IGNORECASE)))


def site_of(settings: Settings) -> str:
    """Return the id of an installation, the same for all its receivers.

    It reveals nothing that the vendors' URLs do not show.
    """
    return sha256(f"{settings.public_url}\n{settings.topic_prefix}".encode()).hexdigest()[:16]
