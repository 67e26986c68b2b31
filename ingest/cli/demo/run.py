"""One demo from start to verdict."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ingest.cli.demo.stage import Stage
from ingest.cli.demo.view import View
from ingest.cli.demo.watch import Watch, rows_as_dicts
from ingest.simulator.rehearsal import Pace, rehearse
from ingest.simulator.sender import Chaos, Sender, Sent
from ingest.simulator.truth import Difference, differences
from ingest.simulator.world import World

_LOOK_SECONDS = 0.25
_SETTLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for."""

    folder: Path
    pace: Pace
    log: str = ""
    seed: int = 1
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. `events` and `bookings` are the warehouse's, `truth` how many bookings there should be."""

    plan: Plan
    stage: Stage
    sent: Sent
    watch: Watch
    wrong: list[Difference]
    truth: int
    dead_letters: int
    first_row_seconds: float | None

    @property
    def right(self) -> bool:
        """Every booking as it truly is, every webhook one event, nothing set aside or given up."""
        return not self.wrong and self.watch.events == self.sent.webhooks and not self.dead_letters and not self.sent.given_up

    def summary(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "right": self.right,
            "seconds": self.plan.pace.seconds,
            "webhooks": self.sent.webhooks,
            "answers": {str(answer): count for answer, count in self.sent.answers.items()},
            "given_up": self.sent.given_up,
            "bookings_expected": self.truth,
            "bookings": self.watch.bookings,
            "events": self.watch.events,
            "dead_letters": self.dead_letters,
            "differences": len(self.wrong),
            "first_row_seconds": self.first_row_seconds,
            "answer_seconds": percentiles(self.sent.latencies),
            "row_visible_seconds": percentiles(self.watch.freshness),
        }


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p95, p99 and max; empty for no values."""
    ordered = sorted(values)
    if not ordered:
        return {}
    at = {name: ordered[min(len(ordered) - 1, int(len(ordered) * share))] for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
    return {name: round(value, 4) for name, value in (at | {"max": ordered[-1]}).items()}


async def run_demo(plan: Plan, *, quiet: bool = False, chaos: Chaos = Chaos()) -> Outcome:
    """Raises ConfigurationError, WarehouseUnavailable."""
    began = datetime.now(UTC)
    stage = Stage(plan.folder, plan.log, workers=plan.workers)
    world = World({name: dialect.habits for name, dialect in stage.dialects.items()}, plan.seed)
    sender = Sender(chaos, plan.seed)
    watch = Watch(stage.settings)
    with View(plan, stage, sender.sent, watch, quiet=quiet) as view, stage.running():
        looking = asyncio.create_task(_keep_looking(watch, view))
        await rehearse(world, stage.dialects, sender, plan.pace, _interrupted())
        await _settle(watch, sender.sent)
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking
        await watch.look()
        view.update()
    await sender.close()
    first_row = (watch.first_row_at - began).total_seconds() if watch.first_row_at else None
    rows = rows_as_dicts(stage.settings, "select * from bookings")
    dead = rows_as_dicts(stage.settings, "select count(*) as n from dead_letters")[0]["n"]
    wrong = differences(world, stage.dialects, rows)
    return Outcome(plan, stage, sender.sent, watch, wrong, len(world.truth()), dead, first_row)


def _interrupted() -> Callable[[], bool]:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop.is_set


async def _keep_looking(watch: Watch, view: View) -> None:
    while True:
        await watch.look()
        view.update()
        await asyncio.sleep(_LOOK_SECONDS)


async def _settle(watch: Watch, sent: Sent) -> None:
    """Until what was accepted is visible; a loss shows as the time limit and a difference."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while watch.events < sent.webhooks and time.monotonic() < deadline:  # noqa: ASYNC110 - another process makes it true
        await asyncio.sleep(_LOOK_SECONDS)
