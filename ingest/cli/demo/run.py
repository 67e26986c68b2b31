"""One demo from start to verdict."""

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ingest.cli.demo.report import Outcome, Plan, Repair
from ingest.cli.demo.sandbox import Processes, Stage
from ingest.cli.demo.view import View
from ingest.cli.demo.watch import Watch, rows_as_dicts
from ingest.errors import VendorUnavailable
from ingest.simulator.rehearsal import REACH, rehearse
from ingest.simulator.sender import Chaos, Patience, Sender, Sent
from ingest.simulator.truth import differences

# In an outage vendors give up, or none of it would be lost.
_IMPATIENT = Patience(attempts=4, first_pause=0.3, longest_pause=1.5)
_LOOK_SECONDS = 0.25
_SETTLE_SECONDS = 60.0


async def run_demo(plan: Plan, *, quiet: bool = False, chaos: Chaos = Chaos()) -> Outcome:
    """Raises ConfigurationError, WarehouseUnavailable."""
    began = datetime.now(UTC)
    stage = Stage(plan.folder, plan.log, workers=plan.workers, seed=plan.seed)
    sender = Sender(chaos, plan.seed, _IMPATIENT if plan.outage else Patience())
    watch, repair = Watch(stage.settings), None
    with View(plan, stage, sender.sent, watch, quiet=quiet) as view, stage.running() as processes:
        looking = asyncio.create_task(_keep_looking(watch, view))
        breaking = asyncio.create_task(_outage(plan, processes, view))
        telling = await rehearse(stage.world, stage.dialects, sender, plan.pace, _told_to_finish())
        await breaking
        await _settle(watch, sender.sent)
        if plan.outage:
            lost = sum(not webhooks <= sender.sent.accepted for webhooks in telling.values())
            view.say(f"the vendors gave up {sender.sent.given_up} webhooks: asking their REST sides …")
            repair = Repair(await asyncio.to_thread(_reconcile, processes), lost)
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking
        await watch.look()
        view.update()
    await sender.close()
    first_row = (watch.first_row_at - began).total_seconds() if watch.first_row_at else None
    rows = rows_as_dicts(stage.settings, "select * from bookings")
    dead = rows_as_dicts(stage.settings, "select count(*) as n from dead_letters")[0]["n"]
    by_webhook = rows_as_dicts(
        stage.settings, "select count(*) as n from booking_events where via = 'webhook'"
    )[0]["n"]
    wrong = differences(stage.world, stage.dialects, rows)
    return Outcome(
        plan, stage, sender.sent, watch, wrong, len(stage.world.truth()), dead, by_webhook, first_row, repair
    )


async def _outage(plan: Plan, processes: Processes, view: View) -> None:
    """In the middle of it all the receiver stops for a while."""
    if not plan.outage:
        return
    await asyncio.sleep((plan.pace.seconds - plan.outage) / 2)
    view.say(
        f"the receiver is down for {plan.outage:g} s; bookings go on, and the vendors give up after a few tries …"
    )
    await asyncio.to_thread(processes.stop, "receive")
    await asyncio.sleep(plan.outage)
    processes.start("receive")
    await asyncio.to_thread(processes.wait_until_accepting)
    view.say("the receiver is back")


def _reconcile(processes: Processes) -> list[dict[str, Any]]:
    """Raises VendorUnavailable when it says nothing that can be read."""
    done = processes.run("reconcile", "--since", REACH, "--json")
    try:
        reports: list[dict[str, Any]] = json.loads(done.stdout)
    except ValueError:
        raise VendorUnavailable(
            f"ingest reconcile failed with exit code {done.returncode}: {done.stderr[-300:]}"
        ) from None
    return reports


def _told_to_finish() -> Callable[[], bool]:
    """Whether SIGTERM came: no more bookings then, and the check of those that were made. Ctrl-C ends the demo without one."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
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
