"""Tests of replays of any log in any batches, over a warehouse of dicts.

A right warehouse stays as it is, and a wrong one is repaired.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.batch import Topics, columns_to_keep, find_incomplete, plan_load, read_batch
from consumers.booking_rows import Row
from consumers.contents import Mapper
from consumers.message import Key
from consumers.replay import as_replay
from ingest.dead_letter import DeadLetter
from ingest.event import Event, Via
from ingest.log import Partition, Record, StoredRecord
from ingest.times import format_instant
from ingest.vendors import OBSERVED, BookingMapper
from tests.consumers.samples import START, TOPIC, moment, sample
from tests.consumers.test_reconciled import oncehub_account

TOPICS = Topics("bookings.dead-letters", "bookings.audit")
# What tells how and when a row came to be.
# The columns that a consumer asks for whatever the messages are.
_DECISIVE = ("version", "first_seen_at", "column_versions")
ITS_OWN = {"first_seen_at", "last_via", "loaded_at"}


@dataclass(slots=True)
class Warehouse:
    """Merges as dlt does.

    `clock` makes every load's `loaded_at` another one, so that a row that was written again shows. `mapper`
    reads the events; another one may take its place between two loads.
    """

    events: dict[Any, Row] = field(default_factory=dict)
    bookings: dict[Key, Row] = field(default_factory=dict)
    clock: "count[int]" = field(default_factory=lambda: count(1000))
    stale: int = 0
    mapper: Mapper = field(default_factory=lambda: BookingMapper({}))

    def load(self, records: Sequence[StoredRecord]) -> None:
        """Load one batch, as the loader does."""
        now = moment(next(self.clock))
        chunk = read_batch(records, TOPICS, self.mapper, now).to_load()
        columns = {*_DECISIVE, *columns_to_keep(chunk)}
        stored = {key: self.bookings[key] for key in chunk.messages if key in self.bookings}
        parts = {key: {name: row[name] for name in columns} for key, row in stored.items()}
        whole_rows = {key: stored[key] for key in find_incomplete(chunk, parts)}
        plan = plan_load(chunk, parts | whole_rows, now)
        assert plan == plan_load(chunk, stored, now), "some columns are not enough"
        self.stale += len(plan.stale)
        self.events = {
            (row["source"], row["id"]): row for row in plan.rows.get("booking_events", [])
        } | self.events
        self.bookings |= {
            (row["vendor"], row["account"], row["booking_id"]): row for row in plan.rows.get("bookings", [])
        }

    def copy(self) -> "Warehouse":
        """Return a copy whose rows can be changed without changing these."""
        return replace(
            self, bookings={key: dict(row) for key, row in self.bookings.items()}, events=dict(self.events)
        )

    def content(self) -> dict[Key, Row]:
        """Return what the rows say, not how they were made."""
        return {
            key: {name: value for name, value in row.items() if name not in ITS_OWN}
            for key, row in self.bookings.items()
        }


@dataclass(frozen=True, slots=True)
class Scenario:
    """A log, the batches in which it and its replay are read, and which part of it is replayed."""

    log: tuple[StoredRecord, ...]
    sizes: tuple[int, ...]
    part: slice

    def batches(self, records: Sequence[StoredRecord]) -> Iterable[Sequence[StoredRecord]]:
        """Yield batches of these, in turn."""
        start, sizes = 0, iter(self.sizes)
        while start < len(records):
            size = next(sizes, 3)
            yield records[start : start + size]
            start += size

    def loaded(self) -> Warehouse:
        """Return the warehouse after the log was read for the first time."""
        return self.play(Warehouse(), self.log)

    def play(self, warehouse: Warehouse, records: Sequence[StoredRecord]) -> Warehouse:
        """Return the same warehouse after these were loaded too."""
        for batch in self.batches(records):
            warehouse.load(batch)
        return warehouse

    def replayed(self, part: slice | None = None) -> list[StoredRecord]:
        """Return the replayed records as they stand at the end of the log."""
        end = len(self.log)
        return [
            StoredRecord(as_replay(stored), stored.partition, end + offset)
            for offset, stored in enumerate(self.log[part or self.part])
        ]


def rest_event(event: Event, observed_at: int, supersedes: bool) -> Event:
    """Return the same state as REST has it at that second."""
    record = orjson.loads(event.data)["data"]
    booking = oncehub_account().booking(event)
    assert booking
    return oncehub_account().observe(record, moment(observed_at), booking.version if supersedes else "")


def gone_event(event: Event, observed_at: int) -> Event:
    booking = oncehub_account().booking(event)
    assert booking
    return oncehub_account().gone(booking, moment(observed_at))


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Draw a dozen events of three bookings, many as new as others.

    Some are received twice, returned by REST again and again, and gone.
    """
    shapes = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=9))
    events = [sample(number, f"B{booking}", at) for number, (booking, at) in enumerate(shapes)]
    of_these = st.sampled_from(events)
    repeats = draw(
        st.lists(
            st.one_of(
                of_these,
                st.builds(
                    lambda event, late: replace(event, received_at=moment(late)), of_these, st.integers(0, 9)
                ),
                st.builds(rest_event, of_these, st.integers(5, 9), st.booleans()),
                st.builds(gone_event, of_these, st.integers(5, 9)),
            ),
            max_size=7,
        )
    )
    log = draw(st.permutations(events + repeats))
    begin, end = sorted(draw(st.tuples(st.integers(0, len(log)), st.integers(0, len(log)))))
    stored = tuple(
        StoredRecord(event.to_record(), Partition(TOPIC), offset) for offset, event in enumerate(log)
    )
    return Scenario(stored, tuple(draw(st.lists(st.integers(1, 8), max_size=12))), slice(begin, end))


@settings(deadline=None)
@given(scenarios())
def test_a_replay_of_any_part_leaves_a_right_warehouse_as_it_is(scenario: Scenario) -> None:
    right = scenario.loaded()
    after = scenario.play(right.copy(), scenario.replayed())
    assert after.bookings == right.bookings
    assert after.events == right.events
    assert after.stale == right.stale


@settings(deadline=None)
@given(scenarios(), st.data())
def test_a_replay_mends_the_rows_that_a_mapping_made_wrong_and_no_others(
    scenario: Scenario, data: st.DataObject
) -> None:
    right = scenario.loaded()
    wrong = right.copy()
    bad = data.draw(st.sets(st.sampled_from(sorted(right.bookings))))
    for key in bad:
        clock = wrong.bookings[key]["version"].rpartition("/")[2]
        changes = [
            {"status": "unknown"},
            {"starts_at": START},
            {"staff": '["S9"]'},
            {"version": f"9999/{clock}"},
            {"version": f"0/{clock}"},
        ]
        wrong.bookings[key] |= data.draw(st.sampled_from(changes))
    after = scenario.play(wrong, scenario.replayed(slice(None)))
    assert after.content() == right.content()
    assert {key: row for key, row in after.bookings.items() if key not in bad} == {
        key: row for key, row in right.bookings.items() if key not in bad
    }
    assert {key: row["first_seen_at"] for key, row in after.bookings.items()} == {
        key: row["first_seen_at"] for key, row in right.bookings.items()
    }


@settings(deadline=None)
@given(scenarios(), st.data())
def test_a_replay_of_the_whole_brings_lost_rows_back(scenario: Scenario, data: st.DataObject) -> None:
    right = scenario.loaded()
    lost = right.copy()
    for key in data.draw(st.sets(st.sampled_from(sorted(right.bookings)), min_size=1)):
        del lost.bookings[key]
    for event in data.draw(st.sets(st.sampled_from(sorted(right.events)))):
        del lost.events[event]
    after = scenario.play(lost, scenario.replayed(slice(None)))
    assert after.content() == right.content()
    assert after.events.keys() == right.events.keys()


@settings(deadline=None)
@given(scenarios(), st.data())
def test_live_events_among_replayed_ones_end_as_if_nothing_had_been_replayed(
    scenario: Scenario, data: st.DataObject
) -> None:
    so_far = data.draw(st.integers(0, len(scenario.log)))
    before, live = scenario.log[:so_far], scenario.log[so_far:]
    replayed = [StoredRecord(as_replay(stored), stored.partition, 0) for stored in before]
    mixed = interleaved(data, replayed, live)
    expected = scenario.play(scenario.play(Warehouse(), before), live)
    after = scenario.play(scenario.play(Warehouse(), before), mixed)
    assert after.content() == expected.content()
    assert after.events.keys() == expected.events.keys()


def interleaved(
    data: st.DataObject, ones: Sequence[StoredRecord], others: Sequence[StoredRecord]
) -> list[StoredRecord]:
    """Draw a mixture of both, each in its own order."""
    places = iter(data.draw(st.permutations([True] * len(ones) + [False] * len(others))))
    first_iterator, right = iter(ones), iter(others)
    return [next(first_iterator) if is_first else next(right) for is_first in places]


def far_too_new(*sizes: int) -> tuple[Scenario, Warehouse]:
    """Return a log in which E2 is the newest, but an older mapping gave E1 a version beyond all others."""
    log = [
        StoredRecord(event.to_record(), Partition(TOPIC), position)
        for position, event in enumerate([sample(2, at=9), sample(1, at=5)])
    ]
    scenario = Scenario(tuple(log), sizes, slice(None))
    wrong = scenario.loaded()
    [row] = wrong.bookings.values()
    row |= {"last_event_id": "E1", "version": f"9999/{format_instant(sample(1, at=5).time)}"}
    return scenario, wrong


def last_event(warehouse: Warehouse) -> str:
    [row] = warehouse.bookings.values()
    return str(row["last_event_id"])


def test_where_a_mended_mapping_makes_another_event_of_the_batch_the_newest_that_one_wins() -> None:
    scenario, wrong = far_too_new(2)
    assert last_event(scenario.play(wrong, scenario.replayed())) == "E2"


def test_where_the_newest_came_in_an_earlier_batch_the_second_replay_settles_it() -> None:
    scenario, wrong = far_too_new(1, 1)
    assert last_event(scenario.play(wrong, scenario.replayed())) == "E1"
    assert last_event(scenario.play(wrong, scenario.replayed())) == "E2"


def test_a_replayed_record_is_the_same_but_for_how_it_came_and_from_where() -> None:
    record = sample(1).to_record()
    twice = as_replay(StoredRecord(record, Partition(TOPIC, 2), 17))
    headers = dict(twice.headers)
    assert headers.pop("ce_replayof") == f"{TOPIC}/2/17"
    assert headers == {**record.headers, "ce_via": "replay"}
    assert (twice.key, twice.value) == (record.key, record.value)
    assert Event.from_record(twice) == replace(sample(1), via=Via.REPLAY)


def test_what_still_cannot_be_read_is_the_dead_letter_that_it_was_and_counts_for_no_limit() -> None:
    bad = StoredRecord(Record("key", b"{", sample(1).to_record().headers), Partition(TOPIC), 3)
    once = read_batch([bad], TOPICS, BookingMapper({}), START)
    twice = read_batch(
        [StoredRecord(as_replay(bad), Partition(TOPIC), 99)], TOPICS, BookingMapper({}), moment(5)
    )
    assert (once.readable, twice.readable) == ([False], [])
    assert [letter.id for letter in twice.dead] == [letter.id for letter in once.dead]
    assert isinstance(twice.dead[0], DeadLetter)
    assert twice.dead[0].position == f"{TOPIC}/0/3"


def test_an_observation_that_is_repeated_counts_within_a_batch_as_it_does_over_two() -> None:
    first, again_seen = rest_event(sample(1, at=3), 6, True), rest_event(sample(1, at=3), 8, True)
    assert (first.id, first.type) == (again_seen.id, OBSERVED)
    between = replace(sample(2, at=3), time=moment(7))
    log = [
        StoredRecord(event.to_record(), Partition(TOPIC), n)
        for n, event in enumerate([first, between, again_seen])
    ]
    warehouse = Warehouse()
    warehouse.load(log)
    [row] = warehouse.bookings.values()
    assert row["last_event_id"] == first.id
