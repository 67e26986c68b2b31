"""One run from start to verdict: load, faults, healing, draining and judging."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.simulator.simulation import Pace, run_simulation
from tests.faults.breaker import Breaker
from tests.faults.faulty_ingest import STEPS_OF_DUCKDB, STEPS_OF_KAFKA, STEPS_OF_SQLITE
from tests.faults.feed import FeedReader
from tests.faults.load import EventKey, Vendors, send_live
from tests.faults.plan import ALL, CLOCKS, KINDS, OF_WAREHOUSE, RECONCILED, Kind, Plan, draw
from tests.faults.servers import serving
from tests.faults.system import System
from tests.faults.verdict import Backlog, Verdict, judge_gaps, loaded_events, verdict

# Webhooks a second at most: half of what two cores can take, since they are often busy starting again.
_RATE = 250.0
_SECONDS_PER_KILL = 3.0  # a consumer needs about two to start and load something


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The parameters of a run, and the folder that it runs in.

    `log` is one of plan.KINDS and `warehouse` one of plan.OF_WAREHOUSE; `kinds` may choose among their kinds
    of faults. `seconds` of 0 means as many as the rest needs. `plan` replaces the drawn plan. `reconcile`
    runs reconciliation as well: what is cut out of the log is to be in gaps, and these are to be closed. The
    world lives by this machine's clock then, because a gap is compared by when vendors were to deliver.

    Clocks jump only on request: what makes it possible costs several times the processor time of all that
    runs.
    """

    log: str
    warehouse: str
    seed: int
    kills: int
    webhooks: int
    folder: Path
    seconds: float = 0.0
    kinds: frozenset[Kind] = ALL - CLOCKS
    plan: Plan | None = None
    reconcile: bool = False

    @property
    def clocks(self) -> bool:
        """Return whether any clock may jump."""
        return bool(self.kinds & CLOCKS)

    @property
    def possible(self) -> frozenset[Kind]:
        """Return the kinds of faults that this log and warehouse have and that the run may use."""
        reconciled = RECONCILED if self.reconcile else frozenset()
        return (KINDS[self.log] | OF_WAREHOUSE[self.warehouse] | reconciled) & self.kinds

    @property
    def pace(self) -> Pace:
        """Return the pace of the webhooks."""
        seconds = self.seconds or max(self.webhooks / _RATE, self.kills * _SECONDS_PER_KILL)
        return Pace(self.webhooks / seconds, seconds)


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did, and its verdict.

    `exits` counts the exit codes of clean stops, and of processes that ended by themselves before.
    """

    options: RunOptions
    vendors: Vendors
    breaker: Breaker
    impossible: frozenset[Kind]
    exits: Counter[int]
    seconds: float
    verdict: Verdict

    def faults(self) -> dict[str, int]:
        """Return the verdict's faults."""
        return self.verdict.faults()

    def summary(self) -> dict[str, Any]:
        """Return the figures of the run for scripts."""
        stats, breaker = self.vendors.stats, self.breaker
        return {
            "log": self.options.log,
            "warehouse": self.options.warehouse,
            "seed": self.options.seed,
            "seconds": round(self.seconds, 1),
            "webhooks_sent": len(self.vendors.events),
            "webhooks_accepted": stats.webhooks,
            "answers": {str(answer): count for answer, count in stats.answers.most_common()},
            "kills": breaker.kills,
            "faults": {str(kind): count for kind, count in sorted(breaker.done.items())},
            "missed": {str(kind): count for kind, count in sorted(breaker.missed.items())},
            "unreached": dict(breaker.unreached),
            "impossible": sorted(self.impossible),
            "exits": {str(code): count for code, count in sorted(self.exits.items())},
            **self.verdict.counts(),
            "examples": list(self.verdict.examples),
        }


OnProgress = Callable[[Vendors, Breaker, Plan], None]


async def run(options: RunOptions, on_progress: OnProgress) -> Report:
    """Run load and faults, and return the report.

    Nothing of the run is left running, whatever happens.
    """
    async with serving(options.log, options.warehouse, options.folder.parent) as servers:
        with ExitStack() as ending:
            return await _run_on(
                System(
                    options.folder,
                    options.seed,
                    servers,
                    ending,
                    clocks=options.clocks,
                    reconcile=options.reconcile,
                ),
                options,
                on_progress,
            )


async def _run_on(system: System, options: RunOptions, on_progress: OnProgress) -> Report:
    started = time.monotonic()
    impossible = system.impossible() & options.kinds
    kinds = options.possible - impossible
    without = {
        *(() if options.warehouse == "duckdb" else STEPS_OF_DUCKDB),
        *(STEPS_OF_KAFKA if options.log == "sqlite" else STEPS_OF_SQLITE),
    }
    plan = options.plan or draw(options.seed, kinds, options.kills, options.pace.seconds, without=without)
    vendors = Vendors(system.settings, options.seed)
    breaker = Breaker(system, vendors)
    async with system.supervised():
        await system.wait_until_accepting()
        feed = FeedReader(system.settings)
        progress = asyncio.create_task(_report_progress(lambda: on_progress(vendors, breaker, plan)))
        await _break(system, options.pace, plan, vendors, breaker)
        progress.cancel()
        await system.wait_until_repaired()
    exits = await system.stop()
    # The proxies in front of the brokers run on this thread.
    judgement = await asyncio.to_thread(_judge, system, vendors, breaker.cut, feed)
    return Report(options, vendors, breaker, impossible, exits, time.monotonic() - started, judgement)


async def _break(system: System, pace: Pace, plan: Plan, vendors: Vendors, breaker: Breaker) -> None:
    """Run load and faults together.

    It returns when all is healed, accepted and loaded, or a long time after that should be so.
    """
    async with asyncio.TaskGroup() as tasks:
        world, accounts = system.sandbox.world, system.sandbox.accounts
        if system.reconciliation:
            tasks.create_task(send_live(world, accounts, vendors, pace))
        else:
            tasks.create_task(run_simulation(world, accounts, vendors, pace, lambda: False))
        tasks.create_task(breaker.follow(plan))
    await vendors.close()
    await system.drain()


def _judge(system: System, vendors: Vendors, cut: frozenset[EventKey], feed: FeedReader) -> Verdict:
    deliveries = vendors.deliveries(cut)
    remainder = Backlog(system.lag(), system.spooled())
    judgement = verdict(
        system.settings,
        system.sandbox.world,
        system.sandbox.accounts,
        deliveries,
        remainder,
        feed.finish(),
    )
    if system.reconciliation:
        lost = (deliveries.accepted & cut) - loaded_events(system.settings)
        judgement = judge_gaps(judgement, lost, vendors.attempts, system.gaps(), system.not_repaired())
    if judgement.faults():
        system.keep()
    return judgement


async def _report_progress(on_progress: Callable[[], None]) -> None:
    while True:
        on_progress()
        await asyncio.sleep(1.0)
