"""The check that nothing was lost, doubled or set back, once all is healed and drained."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ingest.settings import Settings
from ingest.simulator.account import Difference, SimulatedAccount, differences
from ingest.simulator.world import World
from ingest.warehouse.query import query, query_all
from tests.faults.load import EventKey, Told

_EVENTS = "select source, id from booking_events where via = 'webhook'"
_BOOKINGS = "select vendor, account, booking_id from bookings"
_DEAD = "select count(*) from dead_letters"

BookingKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Left:
    """The numbers of records that are still in the log and in spools; 0 when all is drained."""

    lag: int
    spooled: int


@dataclass(frozen=True, slots=True)
class Found:
    """The rows of the warehouse: the key of each row, and the number of dead letters."""

    events: Sequence[EventKey]
    bookings: Sequence[BookingKey]
    dead_letters: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts of what went wrong, which are all to be 0 except `cut`.

    `cut` counts the events that a fault took out of the log before they were loaded. `stale` counts the
    bookings that are there and not as they truly are now.
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
        """Return the counts that are not 0, without `cut`."""
        return {name: count for name, count in self.counts().items() if count and name != "cut"}

    def counts(self) -> dict[str, int]:
        """Return all counts."""
        return {name: value for name in self.__slots__ if isinstance(value := getattr(self, name), int)}


def judge(told: Told, found: Found, wrong: Sequence[Difference], left: Left) -> Verdict:
    """Compare what the vendors sent with what the warehouse has."""
    times, rows = Counter(found.events), Counter(found.bookings)
    lost = told.accepted - times.keys() - told.cut
    cut_bookings = {told.bookings[event] for event in told.cut - times.keys() if event in told.bookings}
    wrong = [
        difference for difference in wrong if (difference.account, difference.booking_id) not in cut_bookings
    ]
    doubled = [key for key, count in [*times.items(), *rows.items()] if count > 1]
    different = {(difference.account, difference.booking_id) for difference in wrong}
    missing = {
        (difference.account, difference.booking_id)
        for difference in wrong
        if not difference.column and not difference.actual
    }
    examples = (
        [f"lost: {key}" for key in sorted(lost)]
        + [f"doubled: {key}" for key in doubled]
        + [f"{difference}" for difference in wrong]
    )
    return Verdict(
        given_up=told.given_up,
        unanswered=len(told.events) - len(told.accepted) - told.given_up,
        cut=len((told.accepted & told.cut) - times.keys()),
        # Two webhooks that became one event are a loss too.
        lost=len(lost) + told.distinct - len(told.accepted),
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
    """Read the warehouse, which nobody writes to any more, and judge it."""
    events, bookings, dead = (answer.rows for answer in query_all(settings, [_EVENTS, _BOOKINGS, _DEAD]))
    found = Found(
        [(row[0], row[1]) for row in events], [(row[0], row[1], row[2]) for row in bookings], dead[0][0]
    )
    return judge(
        told, found, differences(world, dialects, query(settings, "select * from bookings").dicts()), left
    )
