"""Runs the world and sends its webhooks as vendors do: signed anew, retried, sometimes sent twice or late."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx

from ingest.simulator.account import SimulatedAccount, Webhook
from ingest.simulator.world import World

# The world's clock starts some days back and runs fast, so that meetings are booked, moved and held within a
# short run. Receivers accept the times in Bookeo's message ids for a week: stay within it.
_START_BEFORE_NOW = timedelta(days=4)
_WORLD_SPAN = timedelta(days=3, hours=12)
# The world reaches the end of its span after this time at the latest; from then on its clock runs as ours
# does.
_LONGEST_CATCH_UP_SECONDS = 3600.0
LOOKBACK = "5d"  # how far back reconciliation has to look to see everything
_TICK_SECONDS = 0.01
# There is one client for each connection: httpx looks at every connection of a client before every request.
_CONNECTIONS = 16
_TIMEOUT_SECONDS = 15.0


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


@dataclass(frozen=True, slots=True)
class Pace:
    """Webhooks a second, and for how many seconds; `inf` never ends."""

    rate: float
    seconds: float


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


async def run_simulation(
    world: World,
    accounts: Mapping[str, SimulatedAccount],
    sender: Sender,
    pace: Pace,
    is_stopped: Callable[[], bool],
) -> dict[tuple[str, int], set[int]]:
    """Run until the time is over (or `is_stopped` says so) and every webhook was accepted or given up.

    Returns, by account and meeting, the webhooks that together describe the meeting's final state, as hashes
    like those in `DeliveryStats.accepted`: the newest webhook and, where that is incomplete, those before it
    back to a complete one.
    """
    essential: dict[tuple[str, int], set[int]] = {}
    first = datetime.now(UTC) - _START_BEFORE_NOW
    speed = _WORLD_SPAN / min(pace.seconds, _LONGEST_CATCH_UP_SECONDS)
    started, count = time.monotonic(), 0
    while (elapsed := time.monotonic() - started) < pace.seconds and not is_stopped():
        while count < elapsed * pace.rate:
            latest = datetime.now(UTC) - _START_BEFORE_NOW + _WORLD_SPAN
            for change in world.step(min(first + speed * elapsed, latest)):
                account = accounts[change.account]
                webhook = account.webhook(change)
                meeting = change.account, change.meeting.number
                earlier = set() if account.is_complete(change.meeting) else essential.get(meeting, set())
                essential[meeting] = earlier | {hash(webhook)}
                sender.send(account, webhook)
                count += 1
        await asyncio.sleep(_TICK_SECONDS)
    await sender.drain()
    return essential
