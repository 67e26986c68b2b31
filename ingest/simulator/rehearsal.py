"""Runs the world against a receiver: so many webhooks a second, for so long."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ingest.simulator.dialect import Dialect
from ingest.simulator.sender import Sender
from ingest.simulator.world import World

# The world's clock starts some days back and runs fast, so that meetings are booked, moved and held while one watches.
# Bookeo's message ids tell a time that receivers believe for a week: stay within it.
_STARTS_BEFORE = timedelta(days=4)
_WORLD_SPAN = timedelta(days=3, hours=12)
# So long the world takes at most to come near to the present; from then on its clock runs as ours does.
_LONGEST_PACE_SECONDS = 3600.0
REACH = "5d"  # how far back reconciliation has to look, to see all of it
_TICK_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Pace:
    """Webhooks a second, and for how many seconds; `inf` is for ever."""

    rate: float
    seconds: float


async def rehearse(
    world: World, dialects: Mapping[str, Dialect], sender: Sender, pace: Pace, stopped: Callable[[], bool]
) -> dict[tuple[str, int], set[int]]:
    """Run until the time is over (or `stopped` says so) and every webhook was answered or given up.

    Returns the webhooks that tell each meeting's final state, as hashes like those of `Sent.accepted`: the newest one,
    and, where that one leaves something out, those before it back to the newest that tells all.
    """
    telling: dict[tuple[str, int], set[int]] = {}
    first = datetime.now(UTC) - _STARTS_BEFORE
    speed = _WORLD_SPAN / min(pace.seconds, _LONGEST_PACE_SECONDS)
    started, sent = time.monotonic(), 0
    while (elapsed := time.monotonic() - started) < pace.seconds and not stopped():
        while sent < elapsed * pace.rate:
            latest = datetime.now(UTC) - _STARTS_BEFORE + _WORLD_SPAN
            for change in world.step(min(first + speed * elapsed, latest)):
                dialect = dialects[change.account]
                webhook = dialect.webhook(change)
                meeting = change.account, change.meeting.number
                earlier = set() if dialect.tells_all(change.meeting) else telling.get(meeting, set())
                telling[meeting] = earlier | {hash(webhook)}
                sender.send(dialect, webhook)
                sent += 1
        await asyncio.sleep(_TICK_SECONDS)
    await sender.drain()
    return telling
