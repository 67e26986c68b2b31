"""Delivers webhooks over HTTP as vendors do: signed anew, retried, sometimes sent twice or late."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx

from ingest.simulator.account import SimulatedAccount, Webhook


@dataclass(frozen=True, slots=True)
class Chaos:
    """Shares of the webhooks that are sent twice, delayed by up to `delay` seconds, and never sent."""

    duplicated: float = 0.05
    delayed: float = 0.2
    delay: float = 2.0
    lost: float = 0.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The number of attempts, and the pauses between them, which double from the first to the longest."""

    attempts: int = 12
    first_pause: float = 0.2
    longest_pause: float = 5.0


@dataclass(slots=True)
class DeliveryStats:
    """Results of the deliveries.

    `answers` counts responses by status and failures by the name of their exception. `latencies` are the
    seconds from POST to response, `accepted` the hashes of distinct webhooks.
    """

    answers: Counter[int | str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    given_up: int = 0
    lost: int = 0
    accepted: set[int] = field(default_factory=set)

    @property
    def webhooks(self) -> int:
        """The number of distinct webhooks that were accepted."""
        return len(self.accepted)


# There is one client for each connection: httpx looks at every connection of a client before every request.
_CONNECTIONS = 16
_TIMEOUT_SECONDS = 15.0


class Sender:
    """Delivers webhooks concurrently and counts the results in `stats`."""

    def __init__(self, chaos: Chaos, seed: int = 1, retry_policy: RetryPolicy = RetryPolicy()) -> None:
        self.stats = DeliveryStats()
        self._chaos = chaos
        self._retry_policy = retry_policy
        self._random = random.Random(seed)  # noqa: S311 - not for secrets
        tls = httpx.create_ssl_context()
        self._clients = [httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, verify=tls) for _ in range(_CONNECTIONS)]
        self._idle: asyncio.LifoQueue[httpx.AsyncClient] = asyncio.LifoQueue()
        for client in self._clients:
            self._idle.put_nowait(client)
        self._running: set[asyncio.Task[None]] = set()

    def send(self, account: SimulatedAccount, webhook: Webhook) -> None:
        """Start a delivery, which the chaos may delay, duplicate or lose."""
        if self._chaos.lost and self._random.random() < self._chaos.lost:
            self.stats.lost += 1
            return
        late = self._random.random() < self._chaos.delayed
        delay = self._random.uniform(0, self._chaos.delay) if late else 0.0
        self._start(self._deliver(account, webhook, delay, duplicate=False))
        if self._random.random() < self._chaos.duplicated:
            delay = self._random.uniform(0, self._chaos.delay)
            self._start(self._deliver(account, webhook, delay, duplicate=True))

    async def drain(self) -> None:
        """Wait until no delivery is running."""
        while self._running:
            await asyncio.wait(self._running)

    async def close(self) -> None:
        """Cancel the running deliveries and close the connections."""
        for task in self._running:
            task.cancel()
        for client in self._clients:
            await client.aclose()

    def _start(self, delivery: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(delivery)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _deliver(
        self, account: SimulatedAccount, webhook: Webhook, delay: float, *, duplicate: bool
    ) -> None:
        await asyncio.sleep(delay)
        policy = self._retry_policy
        for attempt in range(policy.attempts):
            if await self._attempt(account, webhook):
                self.stats.accepted.add(hash(webhook))
                return
            await asyncio.sleep(min(policy.first_pause * 2**attempt, policy.longest_pause))
        self.stats.given_up += not duplicate

    async def _attempt(self, account: SimulatedAccount, webhook: Webhook) -> bool:
        url = f"{account.url}?{webhook.query}" if webhook.query else account.url
        client = await self._idle.get()
        headers = {"content-type": "application/json", **account.headers(webhook, datetime.now(UTC))}
        started = time.perf_counter()
        try:
            response = await client.post(url, content=webhook.body, headers=headers)
        except httpx.TransportError as error:
            self.stats.answers[type(error).__name__] += 1
            return False
        finally:
            self._idle.put_nowait(client)
        self.stats.latencies.append(time.perf_counter() - started)
        self.stats.answers[response.status_code] += 1
        return response.is_success
