"""The public application: webhooks and a liveness answer, nothing else."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ingest.errors import ConfigurationError
from ingest.log import Producer
from ingest.opening import open_producer
from ingest.settings import Settings
from ingest.settings.sources import current_secrets_path, load_settings
from ingest.telemetry import configure_logging
from ingest.vendors import AnyVendor
from receivers.live import LiveAccounts
from receivers.webhook import Webhooks


def create_app() -> Starlette:
    """For uvicorn workers: settings from INGEST_CONFIG and the environment. Raises ConfigurationError, LogUnavailable."""
    configure_logging("receiver")
    settings = load_settings()
    accounts = LiveAccounts(lambda: ready_vendors(load_settings()), current_secrets_path())
    return build_app(settings, accounts, open_producer(settings))


def ready_vendors(settings: Settings) -> Mapping[tuple[str, str], AnyVendor]:
    """Every account; raises ConfigurationError where one has no webhook secret: it could not tell friend from forger."""
    if not settings.accounts:
        raise ConfigurationError("no account is configured: `ingest init` writes an example of each vendor's")
    bare = [name for name, account in settings.accounts.items() if not account.live_secrets()]
    if bare:
        variables = ", ".join(f"INGEST_ACCOUNTS__{name.upper()}__WEBHOOK_SECRETS" for name in bare)
        raise ConfigurationError(f"no webhook secret for account {', '.join(bare)}: set {variables}")
    return settings.vendors()


def build_app(settings: Settings, vendors: Mapping[tuple[str, str], AnyVendor], producer: Producer) -> Starlette:
    """Routes over a producer that is closed, after a flush, when the application stops."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(producer.close)

    webhooks = Webhooks(settings, vendors, producer)
    app = Starlette(
        routes=[
            Route("/webhooks/{vendor}/{account}", webhooks.endpoint, methods=["POST"]),
            Route("/healthz", _alive),
        ],
        lifespan=lifespan,
        max_body_size=settings.receiver.body_limit,
    )
    app.router.redirect_slashes = False  # a redirect would go to whatever host the caller named
    return app


async def _alive(_: Request) -> Response:
    return PlainTextResponse("ok\n")
