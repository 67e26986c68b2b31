"""One run from start to verdict: load, faults, healing, draining, judging."""

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
from tests.faults.load import Told, Vendors
from tests.faults.plan import ALL, CLOCKS, KINDS, OF_WAREHOUSE, Kind, Plan, draw
from tests.faults.servers import serving
from tests.faults.stand import Stand
from tests.faults.verdict import Left, Verdict, verdict

_RATE = 250.0  # webhooks a second at most: half of what two cores can take, since they are often busy starting again
_SECONDS_PER_KILL = 3.0  # a consumer needs about two to start and load something


@dataclass(frozen=True, slots=True)
class Asked:
    """What to run, and in which folder.

    `log` is one of plan.KINDS and `warehouse` one of plan.OF_WAREHOUSE, of which `kinds` may choose; `seconds` of 0 are as many as the rest needs. `plan` is one that is not drawn.
    Clocks that jump are to be asked for: what makes it possible costs several times the processor time of all that runs.
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

    @property
    def clocks(self) -> bool:
        """Whether any may jump."""
        return bool(self.kinds & CLOCKS)

    @property
    def possible(self) -> frozenset[Kind]:
        """What there is to break, and may be."""
        return (KINDS[self.log] | OF_WAREHOUSE[self.warehouse]) & self.kinds

    @property
    def pace(self) -> Pace:
        """Of the webhooks."""
        seconds = self.seconds or max(self.webhooks / _RATE, self.kills * _SECONDS_PER_KILL)
        return Pace(self.webhooks / seconds, seconds)


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did, and what came of it. `exits` counts exit codes of clean stops, and of what ended by itself before."""

    asked: Asked
    vendors: Vendors
    breaker: Breaker
    impossible: frozenset[Kind]
    exits: Counter[int]
    seconds: float
    verdict: Verdict

    def faults(self) -> dict[str, int]:
        """The verdict's."""
        return self.verdict.faults()

    def summary(self) -> dict[str, Any]:
        """For scripts."""
        sent, broken = self.vendors.stats, self.breaker
        return {
            "log": self.asked.log,
            "warehouse": self.asked.warehouse,
            "seed": self.asked.seed,
            "seconds": round(self.seconds, 1),
            "webhooks_sent": len(self.vendors.events),
            "webhooks_accepted": sent.webhooks,
            "answers": {str(answer): count for answer, count in sent.answers.most_common()},
            "kills": broken.kills,
            "faults": {str(kind): count for kind, count in sorted(broken.done.items())},
            "missed": {str(kind): count for kind, count in sorted(broken.missed.items())},
            "unreached": dict(broken.unreached),
            "impossible": sorted(self.impossible),
            "exits": {str(code): count for code, count in sorted(self.exits.items())},
            **self.verdict.counts(),
            "examples": list(self.verdict.examples),
        }


Tell = Callable[[Vendors, Breaker, Plan], None]


async def run(asked: Asked, tell: Tell) -> Report:
    """Nothing of it is left running, whatever happens."""
    async with serving(asked.log, asked.warehouse, asked.folder.parent) as servers:
        with ExitStack() as ending:
            return await _run_on(
                Stand(asked.folder, asked.seed, servers, ending, clocks=asked.clocks), asked, tell
            )


async def _run_on(stand: Stand, asked: Asked, tell: Tell) -> Report:
    started = time.monotonic()
    impossible = stand.impossible() & asked.kinds
    plan = asked.plan or draw(asked.seed, asked.possible - impossible, asked.kills, asked.pace.seconds)
    vendors = Vendors(stand.settings, asked.seed)
    breaker = Breaker(stand, vendors)
    async with stand.supervised():
        await stand.wait_until_accepting()
        telling = asyncio.create_task(_keep_telling(lambda: tell(vendors, breaker, plan)))
        await _break(stand, asked.pace, plan, vendors, breaker)
        telling.cancel()
    exits = await asyncio.to_thread(stand.stop)
    found = await asyncio.to_thread(
        _judge, stand, vendors.told(breaker.cut)
    )  # the proxies before the brokers run on this thread
    return Report(asked, vendors, breaker, impossible, exits, time.monotonic() - started, found)


async def _break(stand: Stand, pace: Pace, plan: Plan, vendors: Vendors, breaker: Breaker) -> None:
    """Returns when all is healed, accepted and loaded, or a long time after that should be so."""
    async with asyncio.TaskGroup() as both:
        both.create_task(
            run_simulation(stand.stage.world, stand.stage.accounts, vendors, pace, lambda: False)
        )
        both.create_task(breaker.follow(plan))
    await vendors.close()
    await stand.drain()


def _judge(stand: Stand, told: Told) -> Verdict:
    left = Left(stand.lag(), stand.spooled())
    found = verdict(stand.settings, stand.stage.world, stand.stage.accounts, told, left)
    if found.faults():
        stand.keep()
    return found


async def _keep_telling(tell: Callable[[], None]) -> None:
    while True:
        tell()
        await asyncio.sleep(1.0)
