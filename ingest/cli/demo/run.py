"""One demo from start to verdict."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime

from ingest.cli.demo.outcome import Outcome, Plan
from ingest.cli.demo.stage import Stage
from ingest.cli.demo.view import View
from ingest.cli.demo.watch import Watch, rows_as_dicts
from ingest.simulator.rehearsal import rehearse
from ingest.simulator.sender import Chaos, Sender, Sent
from ingest.simulator.truth import differences
from ingest.simulator.world import World

_LOOK_SECONDS = 0.25
_SETTLE_SECONDS = 60.0


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
        await watch.look(details=view.shown)
        view.update()
        await asyncio.sleep(_LOOK_SECONDS)


async def _settle(watch: Watch, sent: Sent) -> None:
    """Until what was accepted is visible; a loss shows as the time limit and a difference."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while watch.events < sent.webhooks and time.monotonic() < deadline:  # noqa: ASYNC110 - another process makes it true
        await asyncio.sleep(_LOOK_SECONDS)
