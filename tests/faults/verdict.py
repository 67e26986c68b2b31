"""Whether anything was lost, doubled or set back, once all is healed and drained."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ingest.cli.demo.report import rows_as_dicts
from ingest.settings import Settings
from ingest.simulator.account import SimulatedAccount
from ingest.simulator.truth import Difference, differences
from ingest.simulator.world import World
from ingest.warehouse.query import query_all
from tests.faults.load import EventKey, Told

_EVENTS = "select source, id from booking_events where via = 'webhook'"
_BOOKINGS = "select vendor, account, booking_id from bookings"
_DEAD = "select count(*) from dead_letters"

BookingKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Left:
    """Records that are still in the log, and in spools; none when all is drained."""

    lag: int
    spooled: int


@dataclass(frozen=True, slots=True)
class Found:
    """What the warehouse has: each row's key, and how many dead letters."""

    events: Sequence[EventKey]
    bookings: Sequence[BookingKey]
    dead_letters: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts, all of which are to be 0 but `cut`: what was taken out of the log before it was loaded, by a fault that does so.

    `stale`: bookings that are there and not as they truly are now.
    """

    cut: int
    given_up: int
    unanswered: int
    lost: int
    doubled: int
    invented: int
    stale: int
    missing: int
    differences: int
    lag: int
    spooled: int
    dead_letters: int
    examples: tuple[str, ...] = ()

    def faults(self) -> dict[str, int]:
        """The counts that are not 0."""
        return {name: count for name, count in self.counts().items() if count and name != "cut"}

    def counts(self) -> dict[str, int]:
        """All but the examples."""
        return {name: value for name in self.__slots__ if isinstance(value := getattr(self, name), int)}


def judge(told: Told, found: Found, wrong: Sequence[Difference], left: Left) -> Verdict:
    """Of what was told, and what the warehouse has."""
    times, rows = Counter(found.events), Counter(found.bookings)
    lost = told.accepted - times.keys() - told.cut
    undone = {told.bookings[event] for event in told.cut - times.keys() if event in told.bookings}
    wrong = [each for each in wrong if (each.account, each.booking_id) not in undone]
    doubled = [key for key, count in [*times.items(), *rows.items()] if count > 1]
    different = {(each.account, each.booking_id) for each in wrong}
    missing = {(each.account, each.booking_id) for each in wrong if not each.column and not each.actual}
    examples = (
        [f"lost: {key}" for key in sorted(lost)]
        + [f"doubled: {key}" for key in doubled]
        + [f"{each}" for each in wrong]
    )
    return Verdict(
        given_up=told.given_up,
        unanswered=len(told.events) - len(told.accepted) - told.given_up,
        cut=len((told.accepted & told.cut) - times.keys()),
        lost=len(lost)
        + told.distinct
        - len(told.accepted),  # two webhooks that became one event are a loss too
        doubled=len(doubled),
        invented=len(times.keys() - told.events),
        stale=len(different - missing),
        missing=len(missing),
        differences=len(wrong),
        lag=left.lag,
        spooled=left.spooled,
        dead_letters=found.dead_letters,
        examples=tuple(examples[:20]),
    )


def verdict(
    settings: Settings, world: World, dialects: Mapping[str, SimulatedAccount], told: Told, left: Left
) -> Verdict:
    """Reads the warehouse, which nobody writes to any more."""
    events, bookings, dead = (answer.rows for answer in query_all(settings, [_EVENTS, _BOOKINGS, _DEAD]))
    found = Found(
        [(row[0], row[1]) for row in events], [(row[0], row[1], row[2]) for row in bookings], dead[0][0]
    )
    return judge(
        told, found, differences(world, dialects, rows_as_dicts(settings, "select * from bookings")), left
    )
