"""Runs the world and sends its webhooks to a receiver, at a given rate and for a given time."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ingest.simulator.account import SimulatedAccount
from ingest.simulator.sender import Sender
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


@dataclass(frozen=True, slots=True)
class Pace:
    """Webhooks a second, and for how many seconds; `inf` never ends."""

    rate: float
    seconds: float


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
