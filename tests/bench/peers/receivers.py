"""Receivers written by hand to compare with: `uvicorn tests.bench.peers.receivers:ceiling`.

`ceiling` checks and reads a delivery, and publishes nothing: what Starlette allows at most. `fastapi` is what
most people would write. BROKERS, TOPIC and SECRET are in the environment.
"""

import hashlib
import hmac
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_SECRET = os.environ.get("SECRET", "").encode()


def read_event(request: Request, body: bytes) -> dict[str, Any] | None:
    """Return the event of a delivery of Calendly; None where its signature does not fit."""
    parts = dict(part.split("=", 1) for part in request.headers["calendly-webhook-signature"].split(","))
    expected = hmac.new(_SECRET, f"{parts['t']}.".encode() + body, hashlib.sha256).hexdigest()
    event: dict[str, Any] = orjson.loads(body)
    return event if hmac.compare_digest(expected, parts["v1"]) else None


async def _check(request: Request) -> Response:
    event = read_event(request, await request.body())
    return Response(status_code=202 if event else 401)


ceiling = Starlette(routes=[Route("/webhooks/{vendor}/{account}", _check, methods=["POST"])])

if find_spec("fastapi") and find_spec("aiokafka"):
    from aiokafka import AIOKafkaProducer
    from fastapi import FastAPI

    @asynccontextmanager
    async def _with_producer(app: Any) -> AsyncIterator[None]:
        producer = AIOKafkaProducer(
            bootstrap_servers=os.environ["BROKERS"], acks="all", enable_idempotence=True
        )
        await producer.start()
        app.state.producer = producer
        yield
        await producer.stop()

    fastapi = FastAPI(lifespan=_with_producer)

    @fastapi.post("/webhooks/{vendor}/{account}")  # type: ignore[untyped-decorator]  # it is not installed
    async def publish(vendor: str, account: str, request: Request) -> Response:
        """Publish a delivery, and answer when all replicas have it."""
        body = await request.body()
        event = read_event(request, body)
        if event is None:
            return Response(status_code=401)
        booking = event["payload"]["uri"].encode()
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_source", f"/{vendor}/{account}".encode()),
            ("ce_type", f"{vendor}.{event['event']}".encode()),
            ("ce_subject", booking),
            ("ce_time", event["created_at"].encode()),
            ("ce_id", booking + event["payload"]["updated_at"].encode()),
        ]
        await fastapi.state.producer.send_and_wait(os.environ["TOPIC"], body, booking, headers=headers)
        return Response(status_code=202)
