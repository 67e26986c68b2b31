"""The check that nothing was lost, doubled or set back, once all is healed and drained."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ingest.settings import Settings
from ingest.simulator.account import Difference, SimulatedAccount, differences
from ingest.simulator.world import World
from ingest.warehouse.gaps import Gap
from ingest.warehouse.query import query, query_all
from tests.faults.feed import Feed
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
    """Counts of what went wrong, which are all to be 0 except `cut` and `gaps`.

    `cut` counts the events that a fault took out of the log before they were loaded, and `gaps` the gaps that
    were found. `stale` counts the
    bookings that are there and not as they truly are now. `feed_older` counts states that the feed of changes
    had after a newer one of the same booking, `feed_behind` bookings whose last state in it is not their row.
    `outside_gaps` counts the events that were cut and are in no gap, `gaps_open` the gaps that are not closed
    in the end, and `not_repaired` what no gap led to repair.
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
    feed_older: int = 0
    feed_behind: int = 0
    gaps: int = 0
    outside_gaps: int = 0
    gaps_open: int = 0
    not_repaired: int = 0
    examples: tuple[str, ...] = ()

    def faults(self) -> dict[str, int]:
        """Return the counts that are not 0, without `cut` and `gaps`."""
        return {name: count for name, count in self.counts().items() if count and name not in {"cut", "gaps"}}

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


def judge_gaps(
    judgement: Verdict,
    cut: Collection[EventKey],
    attempts: Mapping[EventKey, Sequence[tuple[datetime, datetime]]],
    gaps: Sequence[Gap],
    wrong: Sequence[Difference],
) -> Verdict:
    """Add to a judgement what became of the events that were cut and not loaded.

    `attempts` are from when to when each accepted delivery of an event took, and `gaps` all that were found.
    """

    def is_found(event: EventKey) -> bool:
        own = [gap for gap in gaps if gap.source == event[0]]
        return all(
            any(gap.from_at <= end and (gap.until_at is None or begin <= gap.until_at) for gap in own)
            for begin, end in attempts.get(event, [])
        )

    outside = [event for event in cut if not is_found(event)]
    left_open = [gap for gap in gaps if gap.is_open]
    examples = (
        *judgement.examples,
        *(f"in no gap: {event} {attempts.get(event)}" for event in outside),
        *(f"open: {gap}" for gap in left_open),
        *(f"not repaired: {difference}" for difference in wrong),
    )
    return replace(
        judgement,
        gaps=len(gaps),
        outside_gaps=len(outside),
        gaps_open=len(left_open),
        not_repaired=len(wrong),
        examples=examples[:20],
    )


def verdict(  # noqa: PLR0917 - what is compared
    settings: Settings,
    world: World,
    dialects: Mapping[str, SimulatedAccount],
    deliveries: Deliveries,
    backlog: Backlog,
    feed: Feed,
) -> Verdict:
    """Read the warehouse, which nobody writes to any more, and judge it and the feed."""
    events, bookings, dead = (answer.rows for answer in query_all(settings, [_EVENTS, _BOOKINGS, _DEAD]))
    rows = WarehouseRows(
        [(row[0], row[1]) for row in events], [(row[0], row[1], row[2]) for row in bookings], dead[0][0]
    )
    stored = query(settings, "select * from bookings").dicts()
    judgement = judge(deliveries, rows, differences(world, dialects, stored), backlog)
    # What became of an event that was cut may have been cut out of the feed as well, and so may a repair.
    cut = {deliveries.bookings[event] for event in deliveries.cut if event in deliveries.bookings}
    if cut:
        cut |= {(row["account"], row["booking_id"]) for row in stored if row["last_via"] == "reconcile"}
    behind = [key for key in feed.behind(stored) if key[1:] not in cut]
    examples = [f"older in the feed: {text}" for text in feed.older] + [
        f"feed behind: {key}" for key in behind
    ]
    return replace(
        judgement,
        feed_older=len(feed.older),
        feed_behind=len(behind),
        examples=(*judgement.examples, *examples)[:20],
    )


def loaded_events(settings: Settings) -> frozenset[EventKey]:
    """Return the keys of the events that webhooks brought into the warehouse."""
    return frozenset((row[0], row[1]) for row in query(settings, _EVENTS).rows)
