"""What of the log is replayed, and what is left out and why."""

from datetime import timedelta

import pytest

from consumers.batch import read_batch
from consumers.replay import Skipped, Wanted, again, received_at, why_skipped
from ingest.dead_letter import DeadLetter
from ingest.log import Partition, Record, StoredRecord
from ingest.log_probes import probe_records
from ingest.settings import Settings
from ingest.vendors.mapping import BookingMapper
from tests.consumers.samples import START, TOPIC, TOPICS, moment, sample

LATER = START + timedelta(days=9)


def appended(record: Record, topic: str = TOPIC) -> StoredRecord:
    return StoredRecord(record, Partition(topic), 0, LATER.timestamp())


def letter(record: Record) -> DeadLetter:
    """Of a record that the consumer cannot read."""
    stored = StoredRecord(Record("key", b"{", record.headers), Partition(TOPIC), 4)
    [found] = read_batch([stored], TOPICS, BookingMapper({}), moment(50)).dead
    return found


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (Wanted(), None),
        (Wanted(since=moment(10)), None),
        (Wanted(since=moment(10.000001)), Skipped.OUTSIDE),
        (Wanted(until=moment(10)), Skipped.OUTSIDE),
        (Wanted(until=moment(10.000001)), None),
        (Wanted(accounts=frozenset({"other", "support"})), None),
        (Wanted(accounts=frozenset({"oncehub"})), Skipped.OTHER_ACCOUNT),
    ],
)
def test_an_event_counts_by_its_account_and_by_when_it_was_received(
    wanted: Wanted, reason: Skipped | None
) -> None:
    assert why_skipped(appended(sample(1, at=3, received_at=moment(10)).to_record()), wanted) is reason


def test_what_was_received_by_a_clock_that_was_ahead_counts_by_when_it_was_appended() -> None:
    record = sample(1, received_at=LATER + timedelta(days=365)).to_record()
    assert received_at(appended(record)) == LATER
    assert why_skipped(appended(record), Wanted(since=LATER, until=LATER + timedelta(seconds=1))) is None


def test_a_dead_letter_counts_by_its_account_and_by_when_it_was_set_aside() -> None:
    record = letter(sample(1).to_record()).to_record()
    assert received_at(appended(record)) == moment(50)
    assert why_skipped(appended(record, TOPICS.dead_letters), Wanted(accounts=frozenset({"support"}))) is None
    assert why_skipped(appended(record, TOPICS.dead_letters), Wanted(until=moment(50))) is Skipped.OUTSIDE


@pytest.mark.parametrize(
    "headers", [{}, {"ce_time": "yesterday"}, {"ce_receivedat": "never", "ce_time": "2026-05-01T09:00:00Z"}]
)
def test_what_is_not_ours_counts_by_when_it_was_appended(headers: dict[str, str]) -> None:
    assert received_at(appended(Record("key", b"", headers))) == LATER
    assert why_skipped(appended(Record("key", b"", headers)), Wanted(since=LATER)) is None
    assert why_skipped(appended(Record("key", b"", headers)), Wanted(accounts=frozenset({""}))) is None


def test_probes_of_the_log_are_not_replayed() -> None:
    [record] = probe_records(Settings(log="kafka://127.0.0.1:9092"))
    assert why_skipped(appended(record, TOPICS.audit), Wanted()) is Skipped.PROBE


def test_nothing_is_replayed_twice() -> None:
    once = again(appended(sample(1).to_record()))
    assert why_skipped(appended(once), Wanted()) is Skipped.REPLAY
    set_aside = letter(sample(1).to_record()).to_record()
    assert why_skipped(appended(again(appended(set_aside)), TOPICS.dead_letters), Wanted()) is Skipped.REPLAY


@pytest.mark.parametrize(("first", "reason"), [(0, Skipped.REPLAY), (3, Skipped.REPLAY), (4, None)])
def test_a_copy_is_replayed_once_its_original_is_no_longer_in_the_log(
    first: int, reason: Skipped | None
) -> None:
    original = StoredRecord(sample(1).to_record(), Partition(TOPIC, 2), 3)
    copy = StoredRecord(again(original), Partition(TOPIC, 2), 9, LATER.timestamp())
    assert why_skipped(copy, Wanted(), {Partition(TOPIC, 2): first}.__getitem__) is reason
    assert again(copy) == again(original), "it still tells whose place it takes"


def test_the_dead_letter_of_a_replay_is_left_out_because_what_it_repeats_is_there() -> None:
    record = letter(again(appended(sample(1).to_record()))).to_record()
    assert why_skipped(appended(record, TOPICS.dead_letters), Wanted()) is Skipped.REPLAY


@pytest.mark.parametrize("headers", ["", "{", "[]", '{"ce_via":"webhook"}'])
def test_a_dead_letter_whose_headers_say_nothing_of_a_replay_is_replayed(headers: str) -> None:
    assert (
        why_skipped(appended(Record("key", b"", {"dl_headers": headers}), TOPICS.dead_letters), Wanted())
        is None
    )
