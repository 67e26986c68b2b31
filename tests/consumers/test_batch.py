"""Tests of what becomes of each record of a batch, and of how many bad ones are too many."""

from dataclasses import replace
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.batch import Chunk, plan_load, read_batch, to_dead_letter
from consumers.dead_letters.limit import FailureLimit
from ingest.booking import Booking, BookingStatus
from ingest.errors import DeadLetterLimit, PayloadError
from ingest.event import Event
from ingest.log import Partition, Record, StoredRecord
from ingest.vendors import BookingMapper
from tests.consumers.samples import SOURCE, START, TOPIC, TOPICS, sample

DEAD = TOPICS.dead_letters

# Batches of which more than half is bad, with no long run.
LITTLE_GOOD = [[False, False, True], [False, True, False], [True, True]]


def mapper(event: Event) -> Booking | None:
    """Fail as the event's type says."""
    if event.type == "crash":
        raise ZeroDivisionError("with a customer's name in the message")
    if event.type == "refuse":
        raise PayloadError("not the documented shape")
    return (
        Booking(booking_id=event.subject, version="1", status=BookingStatus.CONFIRMED)
        if event.type == "booking"
        else None
    )


def stored(offset: int, kind: str, *, topic: str = TOPIC, **headers: str) -> StoredRecord:
    record = sample(offset, f"B{offset}").to_record()
    return StoredRecord(
        Record(record.key, record.value, {**record.headers, "ce_type": kind, **headers}),
        Partition(topic),
        offset,
    )


def test_every_record_ends_in_one_place() -> None:
    records = [
        stored(0, "booking"),
        stored(1, "contact"),
        stored(2, "refuse"),
        stored(3, "crash"),
        stored(4, "booking", topic=DEAD),
    ]
    batch = read_batch(records, TOPICS, mapper, START)
    assert [(item.event.id, item.message is None) for item in batch.items] == [("E0", False), ("E1", True)]
    assert [(dead.reason, dead.detail, dead.position) for dead in batch.dead] == [
        ("unreadable_record", "not the documented shape", f"{TOPIC}/0/2"),
        ("mapping_crashed", "ZeroDivisionError", f"{TOPIC}/0/3"),
    ]
    assert [letter.offset for letter in batch.letters] == [4]
    assert batch.readable == [True, True, False, False]


def test_a_dead_letter_has_the_bytes_and_headers_of_its_record() -> None:
    record = stored(7, "refuse")
    letter = read_batch([record], TOPICS, mapper, START).dead[0]
    assert (letter.data, letter.headers, letter.source, letter.happened_at) == (
        record.record.value,
        record.record.headers,
        SOURCE,
        START,
    )


@pytest.mark.parametrize(
    "header", ["ce_id", "ce_source", "ce_type", "ce_subject", "ce_time", "ce_receivedat", "ce_via"]
)
@pytest.mark.parametrize("value", ["", "anything at all"])
def test_a_record_without_a_header_of_ours_is_set_aside_unless_any_text_will_do(
    header: str, value: str
) -> None:
    batch = read_batch([stored(0, "booking", **{header: value})], TOPICS, mapper, START)
    any_text_will_do = value and header in {"ce_id", "ce_type", "ce_subject"}
    assert len(batch.dead) == (0 if any_text_will_do else 1)


@pytest.mark.parametrize("value", [b"", b"{", b"[1,]", b"\xff"])
def test_a_payload_that_is_not_json_is_set_aside_even_where_its_mapper_does_not_look(value: bytes) -> None:
    record = stored(0, "contact")
    batch = read_batch(
        [StoredRecord(Record("key", value, record.record.headers), record.partition, 0)],
        TOPICS,
        mapper,
        START,
    )
    assert [(dead.reason, dead.data) for dead in batch.dead] == [("unreadable_record", value)]


@pytest.mark.parametrize("value", [b'{"a": NaN}', b'"\xff"', b'"\\ud800"', b"[" * 5000 + b"]" * 5000])
def test_a_payload_that_only_strict_parsers_refuse_is_loaded(value: bytes) -> None:
    record = stored(0, "contact")
    batch = read_batch(
        [StoredRecord(Record("key", value, record.record.headers), record.partition, 0)],
        TOPICS,
        mapper,
        START,
    )
    assert batch.dead == []
    assert len(batch.items) == 1


def test_of_an_event_that_comes_twice_in_a_batch_the_first_counts() -> None:
    batch = read_batch(
        [
            stored(0, "booking"),
            replace(stored(0, "booking"), offset=1),
            stored(2, "booking", ce_id="E0", ce_source="/oncehub/other"),
        ],
        TOPICS,
        mapper,
        START,
    )
    assert [item.stored.offset for item in batch.items] == [0, 2]
    assert batch.readable == [True, True, True]


def test_a_dead_letter_that_comes_twice_in_a_batch_is_one_row() -> None:
    record = to_dead_letter(stored(0, "refuse"), "unreadable_record", "why", START).to_record()
    letters = [StoredRecord(record, Partition(DEAD), offset) for offset in range(2)]
    assert len(plan_load(Chunk(letters=letters), {}, START).rows["dead_letters"]) == 1


def test_tables_without_rows_are_not_loaded() -> None:
    assert plan_load(Chunk(), {}, START).rows == {}


def too_many(text: str, limit: int) -> bool:
    """Return whether there is a run of `limit` bad ones, or more than half of ten times as many are bad."""
    lately = (text[max(0, end - 10 * limit) : end] for end in range(len(text) + 1))
    return "x" * limit in text or any(batch.count("x") > 5 * limit for batch in lately)


def stops_after(run: FailureLimit, batches: list[list[bool]]) -> int | None:
    """Return how many batches were counted before the one at which it stopped."""
    for number, batch in enumerate(batches):
        try:
            run.count(batch)
        except DeadLetterLimit:
            return number
        run.commit()
    return None


@given(
    st.lists(st.lists(st.booleans(), max_size=5), max_size=8)
    | st.lists(st.sampled_from(LITTLE_GOOD), max_size=25),
    st.integers(1, 4),
)
def test_a_run_of_bad_records_is_counted_over_the_borders_of_batches(
    batches: list[list[bool]], limit: int
) -> None:
    prefixes = accumulate("".join("." if good else "x" for good in batch) for batch in batches)
    expected = next((number for number, so_far in enumerate(prefixes) if too_many(so_far, limit)), None)
    assert stops_after(FailureLimit(limit), batches) == expected


@given(
    st.lists(st.lists(st.booleans(), max_size=5), max_size=8),
    st.lists(st.booleans(), max_size=5),
    st.integers(1, 4),
)
def test_what_was_not_committed_and_is_read_again_counts_once(
    batches: list[list[bool]], lost: list[bool], limit: int
) -> None:
    run = FailureLimit(limit)
    for _ in range(3):
        try:
            run.count(lost)
        except DeadLetterLimit:
            return
        run.rewind()
    assert stops_after(run, batches) == stops_after(FailureLimit(limit), batches)


def test_the_limit_says_how_many_and_what_to_do() -> None:
    with pytest.raises(DeadLetterLimit, match=r"^3 records in a row .* consumer\.dead_letter_limit"):
        FailureLimit(3).count([True, False, False, False])


def test_an_id_that_comes_with_another_payload_is_one_event_but_counts_for_its_booking() -> None:
    events = [
        StoredRecord(replace(sample(number, "B1", at), id="E1").to_record(), Partition(TOPIC), number)
        for number, at in ((1, 0), (2, 60))
    ]
    plan = plan_load(read_batch(events, TOPICS, BookingMapper({}), START).to_load(), {}, START)
    assert [row["id"] for row in plan.rows["booking_events"]] == ["E1"]
    assert [row["service_name"] for row in plan.rows["bookings"]] == ["told by E2"]
