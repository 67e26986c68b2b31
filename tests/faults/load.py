"""The vendors' side of a run: webhooks at a steady rate, tried again for as long as it takes."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from ingest.settings import Settings
from ingest.simulator.account import SimulatedAccount, Webhook
from ingest.simulator.simulation import Chaos, Pace, RetryPolicy, Sender
from ingest.simulator.world import World
from ingest.vendors import Delivery
from ingest.vendors.delivery import Headers

_CHAOS = Chaos(duplicated=0.05, delayed=0.1, delay=2.0)
_PATIENCE = RetryPolicy(attempts=1000, first_pause=0.2, longest_pause=3.0)

_TICK_SECONDS = 0.01
_FILLING_BYTES = 1000 * 1024  # with the webhook's own body, a little less than receiver.body_limit
# Large bodies are filled with text, or with JSON that takes many times its size once it is parsed.
_FILLINGS = (b'"' + b"a" * _FILLING_BYTES + b'"', b"[" + b"[]," * (_FILLING_BYTES // 3) + b"0]")

EventKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Deliveries:
    """What the vendors sent in their webhooks.

    `events` are those of all webhooks, `accepted` those of the accepted ones; `distinct` counts the webhooks
    accepted.

    `cut` are events that a fault took out of the log after they were accepted, which the warehouse may not
    have. `bookings` tells whose the events are, by account and id.
    """

    events: frozenset[EventKey]
    accepted: frozenset[EventKey]
    distinct: int
    given_up: int
    cut: frozenset[EventKey] = frozenset()
    bookings: Mapping[EventKey, tuple[str, str]] = field(default_factory=dict)


class Vendors(Sender):
    """A sender that notes the source and id of the event that each webhook is to become.

    `events` has them by the webhook's hash, and `attempts` from when to when each accepted attempt took.
    """

    def __init__(self, settings: Settings, seed: int) -> None:
        super().__init__(_CHAOS, seed, _PATIENCE)
        self.events: dict[int, EventKey] = {}
        self._bookings: dict[EventKey, tuple[str, str]] = {}
        self._under_way: dict[asyncio.Event, EventKey] = {}
        self._readers = settings.build_accounts()
        self.attempts: dict[EventKey, list[tuple[datetime, datetime]]] = {}  # those that were accepted
        self.large = 0
        """The number of the next webhooks that are to be as large as a receiver takes them."""

    def send(self, dialect: SimulatedAccount, webhook: Webhook) -> None:
        """Send the webhook, and note its event."""
        if self.large:
            self.large -= 1
            webhook = _filled(webhook, _FILLINGS[self.large % len(_FILLINGS)])
        self.events[hash(webhook)] = self._event(dialect, webhook)
        super().send(dialect, webhook)

    def accepted(self) -> frozenset[EventKey]:
        """Return the events accepted so far."""
        return frozenset(self.events[webhook] for webhook in self.stats.accepted)

    async def accepted_by_now(self) -> frozenset[EventKey]:
        """Return the events accepted so far, with those whose answers are still on their way.

        A receiver that is frozen answers late: its answers are waited for.
        """
        accepted, under_way = self.accepted(), dict(self._under_way)
        for answered in under_way:
            await answered.wait()
        return accepted | (self.accepted() & frozenset(under_way.values()))

    def deliveries(self, cut: frozenset[EventKey] = frozenset()) -> Deliveries:
        """Return what the vendors sent so far."""
        return Deliveries(
            frozenset(self.events.values()),
            self.accepted(),
            self.stats.webhooks,
            self.stats.given_up,
            cut,
            self._bookings,
        )

    async def _attempt(self, dialect: SimulatedAccount, webhook: Webhook) -> bool:
        answered, event, begun_at = asyncio.Event(), self.events[hash(webhook)], datetime.now(UTC)
        self._under_way[answered] = event
        try:
            is_accepted = await super()._attempt(dialect, webhook)
            if is_accepted:
                self.attempts.setdefault(event, []).append((begun_at, datetime.now(UTC)))
            return is_accepted
        except AttributeError:  # anyio raises it for a connection that ends just as it is made
            return False
        finally:
            del self._under_way[answered]
            answered.set()  # whoever waits goes on after the answer was counted

    def _event(self, dialect: SimulatedAccount, webhook: Webhook) -> EventKey:
        now = datetime.now(UTC)
        vendor, account = dialect.url.split("/")[-2:]
        reader = self._readers[vendor, account]
        delivery = Delivery(
            webhook.query, Headers.of(dialect.headers(webhook, now).items()), webhook.body, now
        )
        event = reader.parse(reader.verify(delivery, now))
        self._bookings[event.source, event.id] = account, event.subject
        return event.source, event.id


async def send_live(
    world: World, accounts: Mapping[str, SimulatedAccount], vendors: Vendors, pace: Pace
) -> None:
    """Let the world live by this machine's clock, and send the webhook of each change as it happens.

    A run of minutes has bookings, and moves and cancellations soon after. Nobody holds a meeting in it.
    """
    started, count = time.monotonic(), 0
    while (elapsed := time.monotonic() - started) < pace.seconds:
        while count < elapsed * pace.rate:
            for change in world.step(datetime.now(UTC)):
                account = accounts[change.account]
                vendors.send(account, account.webhook(change))
                count += 1
        await asyncio.sleep(_TICK_SECONDS)
    await vendors.drain()


def _filled(webhook: Webhook, filling: bytes) -> Webhook:
    """Return the webhook with one more field, which no reader asks for."""
    return replace(webhook, body=b'{"filling":' + filling + b"," + webhook.body.removeprefix(b"{"))
