"""Delivers webhooks as vendors do: over HTTP, signed anew each time, retried until answered 2xx; sometimes twice, sometimes late."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx

from ingest.simulator.dialect import Dialect, Webhook


@dataclass(frozen=True, slots=True)
class Chaos:
    """How badly the network behaves: shares of deliveries sent twice, held back by up to `delay` seconds, and never sent."""

    duplicated: float = 0.05
    delayed: float = 0.2
    delay: float = 2.0
    lost: float = 0.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a vendor tries, and the seconds between two attempts, which double from the first to the longest."""

    attempts: int = 12
    first_pause: float = 0.2
    longest_pause: float = 5.0


@dataclass(slots=True)
class Sent:
    """What came of it. `latencies` are seconds from POST to answer, `accepted` the hashes of distinct webhooks."""

    answers: Counter[int | str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    given_up: int = 0
    lost: int = 0
    accepted: set[int] = field(default_factory=set)

    @property
    def webhooks(self) -> int:
        """Distinct ones accepted, whichever of two copies it was."""
        return len(self.accepted)


# One client each: httpx looks at every connection of a client before every request.
_CONNECTIONS = 16
_TIMEOUT_SECONDS = 15.0


class Sender:
    """Deliveries run side by side; `drain` waits for the last of them."""

    def __init__(self, chaos: Chaos, seed: int = 1, patience: Patience = Patience()) -> None:
        self.sent = Sent()
        self._chaos = chaos
        self._patience = patience
        self._random = random.Random(seed)  # noqa: S311 - not for secrets
        tls = httpx.create_ssl_context()
        self._clients = [httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, verify=tls) for _ in range(_CONNECTIONS)]
        self._idle: asyncio.LifoQueue[httpx.AsyncClient] = asyncio.LifoQueue()
        for client in self._clients:
            self._idle.put_nowait(client)
        self._running: set[asyncio.Task[None]] = set()

    def send(self, dialect: Dialect, webhook: Webhook) -> None:
        """Begin delivering: late, doubled or not at all, as chance has it."""
        if self._chaos.lost and self._random.random() < self._chaos.lost:
            self.sent.lost += 1
            return
        late = (
            self._random.uniform(0, self._chaos.delay) if self._random.random() < self._chaos.delayed else 0.0
        )
        self._start(self._deliver(dialect, webhook, late, first=True))
        if self._random.random() < self._chaos.duplicated:
            self._start(
                self._deliver(dialect, webhook, self._random.uniform(0, self._chaos.delay), first=False)
            )

    async def drain(self) -> None:
        """Until nothing is under way."""
        while self._running:
            await asyncio.wait(self._running)

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._running:
            task.cancel()
        for client in self._clients:
            await client.aclose()

    def _start(self, delivery: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(delivery)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _deliver(self, dialect: Dialect, webhook: Webhook, late: float, *, first: bool) -> None:
        await asyncio.sleep(late)
        for attempt in range(self._patience.attempts):
            if await self._attempt(dialect, webhook):
                self.sent.accepted.add(hash(webhook))
                return
            await asyncio.sleep(min(self._patience.first_pause * 2**attempt, self._patience.longest_pause))
        self.sent.given_up += first

    async def _attempt(self, dialect: Dialect, webhook: Webhook) -> bool:
        url = f"{dialect.url}?{webhook.query}" if webhook.query else dialect.url
        client = await self._idle.get()
        headers = {"content-type": "application/json", **dialect.headers(webhook, datetime.now(UTC))}
        started = time.perf_counter()
        try:
            response = await client.post(url, content=webhook.body, headers=headers)
        except httpx.TransportError as error:
            self.sent.answers[type(error).__name__] += 1
            return False
        finally:
            self._idle.put_nowait(client)
        self.sent.latencies.append(time.perf_counter() - started)
        self.sent.answers[response.status_code] += 1
        return response.is_success
