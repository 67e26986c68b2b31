"""Plans of what is broken and when, drawn from a seed so that a run can be repeated."""

import random
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tests.faults.faulty_ingest import MOMENTS


class Kind(StrEnum):
    """One way to break something."""

    KILL_CONSUMER = "kill a consumer"
    KILL_CONSUMER_AT_STEP = "kill a consumer at a step of its loop"
    KILL_WORKER = "kill a receiver's worker"
    KILL_WORKER_AT_STEP = "kill a receiver's worker at a step"
    KILL_RECEIVER = "kill a receiver's parent"
    KILL_RECONCILIATION_AT_STEP = "kill reconciliation at a step of closing gaps"
    KILL_BROKER = "kill a broker"
    KILL_LEADER = "kill a partition leader's broker"
    FREEZE_CONSUMER = "freeze a consumer"
    FREEZE_CONSUMER_AT_STEP = "freeze a consumer at a step of its loop"
    FREEZE_WORKER = "freeze a receiver's worker"
    FREEZE_BROKER = "freeze a broker"
    BROKERS_DOWN = "all brokers down"
    FULL_LOG_DISK = "disk of the log full"
    FULL_WAREHOUSE_DISK = "disk of the warehouse full"
    WAREHOUSE_LOCKED = "warehouse held by another program"
    WAREHOUSE_DOWN = "warehouse's server down"
    LARGE_BODIES = "a burst of large bodies"
    SETTINGS_BROKEN = "a mistake in the settings file"
    NETWORK_CUT = "network cut"
    NETWORK_SILENT = "network silent"
    NETWORK_SLOW = "network slow"
    CONSUMER_CLOCK = "consumer's clock jumps"
    RECEIVER_CLOCK = "receiver's clock jumps"
    CONSUMER_JOINS = "a consumer joins and leaves"
    LOG_CUT = "brokers lose the tail of the log"
    TOPIC_ANEW = "a topic is deleted and made again"
    LOG_RESTORED = "log restored from a copy"
    LOG_OVERWRITTEN = "a copy written over the log's file"
    WAL_DELETED = "the log's -wal deleted"
    WAREHOUSE_RESTORED = "warehouse restored from a copy"

    @property
    def kills(self) -> bool:
        """Return whether it kills a process with kill -9."""
        return self in _KILLS


# How often each kind of kill comes, by weight.
_KILLS = {
    Kind.KILL_CONSUMER: 20,
    Kind.KILL_CONSUMER_AT_STEP: 30,
    Kind.KILL_WORKER: 25,
    Kind.KILL_WORKER_AT_STEP: 15,
    Kind.KILL_RECEIVER: 10,
    Kind.KILL_RECONCILIATION_AT_STEP: 20,
    Kind.KILL_BROKER: 5,
    Kind.KILL_LEADER: 5,
}
# The shortest and the longest time, in seconds, of each kind that is not over at once.
_LASTING = {
    Kind.KILL_BROKER: (0.2, 3.0),
    Kind.KILL_LEADER: (0.2, 6.0),
    Kind.FREEZE_CONSUMER: (0.5, 14.0),  # the longest cost a consumer its partitions
    Kind.FREEZE_CONSUMER_AT_STEP: (1.0, 14.0),
    Kind.FREEZE_WORKER: (0.5, 6.0),
    Kind.FREEZE_BROKER: (0.5, 6.0),
    Kind.BROKERS_DOWN: (2.0, 12.0),
    Kind.FULL_LOG_DISK: (1.0, 6.0),
    Kind.FULL_WAREHOUSE_DISK: (1.0, 8.0),
    Kind.WAREHOUSE_LOCKED: (1.0, 12.0),
    Kind.WAREHOUSE_DOWN: (0.5, 10.0),
    Kind.SETTINGS_BROKEN: (1.0, 10.0),
    Kind.NETWORK_CUT: (1.0, 8.0),
    Kind.NETWORK_SILENT: (1.0, 8.0),
    Kind.NETWORK_SLOW: (2.0, 10.0),
    Kind.CONSUMER_CLOCK: (3.0, 10.0),
    Kind.RECEIVER_CLOCK: (3.0, 10.0),
    Kind.CONSUMER_JOINS: (4.0, 20.0),
    Kind.LOG_CUT: (0.2, 3.0),
    Kind.LOG_RESTORED: (1.0, 10.0),
    Kind.LOG_OVERWRITTEN: (1.0, 6.0),
    Kind.WAREHOUSE_RESTORED: (1.0, 10.0),
}
_STEPS = {
    Kind.KILL_CONSUMER_AT_STEP: "consume",
    Kind.FREEZE_CONSUMER_AT_STEP: "consume",
    Kind.KILL_WORKER_AT_STEP: "receive",
    Kind.KILL_RECONCILIATION_AT_STEP: "reconcile",
}
_OTHERS_PER_KILL = 0.2
_QUIET_SECONDS = 1.0  # at the start, so that there is something to break

_BOTH = frozenset(
    {
        Kind.KILL_CONSUMER,
        Kind.KILL_CONSUMER_AT_STEP,
        Kind.KILL_WORKER,
        Kind.KILL_WORKER_AT_STEP,
        Kind.KILL_RECEIVER,
        Kind.FREEZE_CONSUMER,
        Kind.FREEZE_CONSUMER_AT_STEP,
        Kind.FREEZE_WORKER,
        Kind.FULL_WAREHOUSE_DISK,
        Kind.WAREHOUSE_LOCKED,
        Kind.LARGE_BODIES,
        Kind.SETTINGS_BROKEN,
        Kind.CONSUMER_CLOCK,
        Kind.RECEIVER_CLOCK,
    }
)
_KAFKA = _BOTH | {
    Kind.KILL_BROKER,
    Kind.FREEZE_BROKER,
    Kind.BROKERS_DOWN,
    Kind.NETWORK_CUT,
    Kind.NETWORK_SILENT,
    Kind.NETWORK_SLOW,
    Kind.CONSUMER_JOINS,
    Kind.LOG_CUT,
    Kind.TOPIC_ANEW,
}
KINDS: Mapping[str, frozenset[Kind]] = {
    "sqlite": _BOTH | {Kind.FULL_LOG_DISK, Kind.LOG_RESTORED, Kind.LOG_OVERWRITTEN, Kind.WAL_DELETED},
    "kafka": _KAFKA,
    "cluster": _KAFKA | {Kind.KILL_LEADER},
}
OF_WAREHOUSE: Mapping[str, frozenset[Kind]] = {
    "duckdb": frozenset({Kind.WAREHOUSE_RESTORED}),
    "postgres": frozenset({Kind.WAREHOUSE_DOWN}),
}
RECONCILED = frozenset({Kind.KILL_RECONCILIATION_AT_STEP})  # only where reconciliation runs
CLOCKS = frozenset({Kind.CONSUMER_CLOCK, Kind.RECEIVER_CLOCK})
ALL = frozenset(Kind)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to break.

    It begins `at` so many seconds after the start and lasts for `seconds`. `chance`, from 0 to 1, chooses
    among several targets; `moment` is a moment of a step.
    """

    at: float
    kind: Kind
    seconds: float
    chance: float
    moment: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """The faults of a run, in the order of their times."""

    seed: int
    seconds: float
    faults: tuple[Fault, ...]

    @property
    def kills(self) -> int:
        """Return how many of the faults kill."""
        return sum(fault.kind.kills for fault in self.faults)


def draw(
    seed: int, kinds: frozenset[Kind], kills: int, seconds: float, *, without: Collection[str] = ()
) -> Plan:
    """Draw a plan with so many kills and a fifth as many other faults.

    Each kind comes at least once. Each step comes once before any comes again, but for those in `without`.
    """
    chance = random.Random(seed)
    ordered = sorted(kinds)
    chosen = _choose_kinds(chance, {kind: _KILLS[kind] for kind in ordered if kind in _KILLS}, kills)
    chosen += _choose_kinds(
        chance, {kind: 1 for kind in ordered if kind not in _KILLS}, round(kills * _OTHERS_PER_KILL)
    )
    chance.shuffle(chosen)
    times = sorted(chance.uniform(_QUIET_SECONDS, seconds) for _ in chosen)
    moments = {}
    for kind, command in _STEPS.items():
        possible = [moment for moment in MOMENTS[command] if moment.partition(" ")[2] not in without]
        moments[kind] = chance.sample(possible, len(possible))
    counts: Counter[Kind] = Counter()
    faults = []
    for at, kind in zip(times, chosen, strict=True):
        moment = moments[kind][counts[kind] % len(moments[kind])] if kind in moments else ""
        counts[kind] += 1
        faults.append(Fault(at, kind, chance.uniform(*_LASTING.get(kind, (0, 0))), chance.random(), moment))
    return Plan(seed, seconds, tuple(faults))


def _choose_kinds(chance: random.Random, weights: Mapping[Kind, int], count: int) -> list[Kind]:
    """Choose so many kinds: each once, and the rest by weight."""
    if not weights:
        return []
    return [*weights, *chance.choices(list(weights), list(weights.values()), k=max(0, count - len(weights)))]
