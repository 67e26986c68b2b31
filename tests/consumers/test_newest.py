"""Tests that each event is loaded once and each booking has its newest state, over a warehouse of dicts.

The order, repetitions and batches of events are arbitrary.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumers.batch import Plan, plan_load, read_batch
from consumers.booking_rows import Row
from consumers.message import Key
from ingest.event import Event
from ingest.log import Partition, StoredRecord
from ingest.vendors import BookingMapper
from tests.consumers.harness import ConsumerHarness
from tests.consumers.samples import START, TOPIC, TOPICS, moment, sample


@dataclass(frozen=True, slots=True)
class Reading:
    """A log and how it is read: the sizes of batches, and which loads a crash keeps from the commit."""

    log: tuple[Event, ...]
    sizes: tuple[int, ...]
    crashes: tuple[bool, ...]

    def batches(self) -> Iterable[tuple[Event, ...]]:
        """Yield every batch that is loaded, again where a new process reads what was not committed."""
        start, sizes, crashes = 0, iter(self.sizes), iter(self.crashes)
        while start < len(self.log):
            size, crash = next(sizes, len(self.log)), next(crashes, False)
            yield self.log[start : start + size]
            start += 0 if crash else size


@st.composite
def readings(draw: st.DrawFn) -> Reading:
    """Draw a dozen events of three bookings, some as new as others, some received twice."""
    shapes = draw(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=12)
    )
    events = [
        sample(number, f"B{booking}", at, received_at=moment(at + late))
        for number, (booking, at, late) in enumerate(shapes)
    ]
    again = draw(st.lists(st.sampled_from(events), max_size=5))
    log = draw(st.permutations(events + again))
    sizes = draw(st.lists(st.integers(1, 6), max_size=8))
    return Reading(tuple(log), tuple(sizes), tuple(draw(st.lists(st.booleans(), max_size=8))))


@dataclass(slots=True)
class Model:
    """A warehouse that merges as dlt does: by key, blind to keys that come twice in one load."""

    events: dict[Any, dict[str, Any]] = field(default_factory=dict)
    bookings: dict[Key, dict[str, Any]] = field(default_factory=dict)

    def load(self, plan: Plan) -> None:
        """Load a plan, and assert what has to be true of every load."""
        events = {(row["source"], row["id"]): row for row in plan.rows.get("booking_events", [])}
        bookings = {
            (row["vendor"], row["account"], row["booking_id"]): row for row in plan.rows.get("bookings", [])
        }
        assert sum(map(len, plan.rows.values())) == len(events) + len(bookings), "a key came twice"
        for key in bookings.keys() & self.bookings.keys():
            assert bookings[key]["version"] > self.bookings[key]["version"], "replaced by what is not newer"
            assert bookings[key]["first_seen_at"] == self.bookings[key]["first_seen_at"], (
                "first_seen_at was not kept"
            )
        self.events = events | self.events
        self.bookings |= bookings

    def versions(self, keys: Iterable[Key]) -> Mapping[Key, Row]:
        return {key: self.bookings[key] for key in keys if key in self.bookings}


def play(reading: Reading) -> Model:
    """Load the batches as the loader does, without one."""
    model, offsets = Model(), count()
    for batch in reading.batches():
        records = [StoredRecord(event.to_record(), Partition(TOPIC), next(offsets)) for event in batch]
        chunk = read_batch(records, TOPICS, BookingMapper({}), START).to_load()
        model.load(plan_load(chunk, model.versions(chunk.messages), START))
    return model


@settings(deadline=None)
@given(readings())
def test_every_event_is_there_once_and_every_booking_at_its_newest(reading: Reading) -> None:
    model = play(reading)
    assert {row["id"] for row in model.events.values()} == {event.id for event in reading.log}
    assert {key[2]: row["created_at"] for key, row in model.bookings.items()} == {
        event.subject: START for event in reading.log
    }
    for (_, _, booking), row in model.bookings.items():
        newest = max(event.time for event in reading.log if event.subject == booking)
        assert row["updated_at"] == newest
        assert row["last_event_id"] in {
            event.id for event in reading.log if event.subject == booking and event.time == newest
        }


@settings(deadline=None)
@given(readings())
def test_a_booking_was_first_seen_when_the_first_batch_with_it_was_received(reading: Reading) -> None:
    first: dict[str, datetime] = {}
    for batch in reading.batches():
        for booking in {event.subject for event in batch} - first.keys():
            first[booking] = min(event.received_at for event in batch if event.subject == booking)
    assert {key[2]: row["first_seen_at"] for key, row in play(reading).bookings.items()} == first


def test_of_a_batch_the_state_that_lost_is_told_as_stale() -> None:
    events = [sample(1, at=5), sample(2, at=9)]
    records = [
        StoredRecord(event.to_record(), Partition(TOPIC), offset) for offset, event in enumerate(events)
    ]
    chunk = read_batch(records, TOPICS, BookingMapper({}), START).to_load()
    [stored] = plan_load(
        read_batch(
            [StoredRecord(sample(3, at=7).to_record(), Partition(TOPIC), 3)], TOPICS, BookingMapper({}), START
        ).to_load(),
        {},
        START,
    ).rows["bookings"]
    plan = plan_load(chunk, dict.fromkeys(chunk.messages, stored), START)
    assert [message.event.id for message in plan.stale] == ["E1"]
    assert [row["last_event_id"] for row in plan.rows["bookings"]] == ["E2"]


_examples = count(1)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(readings())
def test_the_same_comes_out_of_a_real_warehouse(harness: ConsumerHarness, reading: Reading) -> None:
    example = f"example {next(_examples)} "
    for batch in reading.batches():
        harness.load(
            *(
                replace(
                    event,
                    id=example + event.id,
                    data=event.data.replace(b'"id":"B', f'"id":"{example}B'.encode()),
                )
                for event in batch
            )
        )
    model = play(reading)
    events = harness.column(f"select id from booking_events where starts_with(id, '{example}')")
    assert sorted(events) == sorted(example + row["id"] for row in model.events.values())
    bookings = harness.rows(
        "select booking_id, version, last_event_id, first_seen_at from bookings where"
        f" starts_with(booking_id, '{example}')"
    )
    assert {
        row["booking_id"]: (row["version"], row["last_event_id"], row["first_seen_at"]) for row in bookings
    } == {
        example + key[2]: (row["version"], example + row["last_event_id"], row["first_seen_at"])
        for key, row in model.bookings.items()
    }
