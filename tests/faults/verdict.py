"""The check that nothing was lost, doubled or set back, once all is healed and drained."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ingest.settings import Settings
from ingest.simulator.account import Difference, SimulatedAccount, differences
from ingest.simulator.world import World
from ingest.warehouse.query import query, query_all
from tests.faults.load import Deliveries, EventKey

_EVENTS = "select source, id from booking_events where via = 'webhook'"
_BOOKINGS = "select vendor, account, booking_id from bookings"
_DEAD = "select count(*) from dead_letters"

BookingKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Backlog:
    """The numbers of records that are still in the log and in spools; 0 when all is drained."""

    lag: int
    spooled: int


@dataclass(frozen=True, slots=True)
class WarehouseRows:
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


def judge(
    deliveries: Deliveries, rows: WarehouseRows, wrong: Sequence[Difference], backlog: Backlog
) -> Verdict:
    """Compare what the vendors sent with what the warehouse has."""
    event_counts, booking_counts = Counter(rows.events), Counter(rows.bookings)
    lost = deliveries.accepted - event_counts.keys() - deliveries.cut
    cut_bookings = {
        deliveries.bookings[event]
        for event in deliveries.cut - event_counts.keys()
        if event in deliveries.bookings
    }
    wrong = [
        difference for difference in wrong if (difference.account, difference.booking_id) not in cut_bookings
    ]
    doubled = [key for key, count in [*event_counts.items(), *booking_counts.items()] if count > 1]
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
        given_up=deliveries.given_up,
        unanswered=len(deliveries.events) - len(deliveries.accepted) - deliveries.given_up,
        cut=len((deliveries.accepted & deliveries.cut) - event_counts.keys()),
        # Two webhooks that became one event are a loss too.
        lost=len(lost) + deliveries.distinct - len(deliveries.accepted),
        doubled=len(doubled),
        invented=len(event_counts.keys() - deliveries.events),
        stale=len(different - missing),
        missing=len(missing),
        differences=len(wrong),
        lag=backlog.lag,
        spooled=backlog.spooled,
        dead_letters=rows.dead_letters,
        examples=tuple(examples[:20]),
    )


def verdict(
    settings: Settings,
    world: World,
    dialects: Mapping[str, SimulatedAccount],
    deliveries: Deliveries,
    backlog: Backlog,
) -> Verdict:
    """Read the warehouse, which nobody writes to any more, and judge it."""
    events, bookings, dead = (answer.rows for answer in query_all(settings, [_EVENTS, _BOOKINGS, _DEAD]))
    rows = WarehouseRows(
        [(row[0], row[1]) for row in events], [(row[0], row[1], row[2]) for row in bookings], dead[0][0]
    )
    return judge(
        deliveries,
        rows,
        differences(world, dialects, query(settings, "select * from bookings").dicts()),
        backlog,
    )
