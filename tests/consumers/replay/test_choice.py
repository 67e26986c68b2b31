"""Tests of which records are replayed, and why others are left out."""

from datetime import timedelta

import pytest

from consumers.batch import read_batch
from consumers.replay import ReplayFilter, SkipReason, as_replay, received_at, skip_reason
from ingest.dead_letter import DeadLetter
from ingest.log import Partition, Record, StoredRecord
from ingest.log_probes import probe_records
from ingest.settings import Settings
from ingest.vendors import BookingMapper
from tests.consumers.samples import START, TOPIC, TOPICS, moment, sample

LATER = START + timedelta(days=9)


def appended(record: Record, topic: str = TOPIC) -> StoredRecord:
    return StoredRecord(record, Partition(topic), 0, LATER.timestamp())


def letter(record: Record) -> DeadLetter:
    """Return the letter of a record that the consumer cannot read."""
    stored = StoredRecord(Record("key", b"{", record.headers), Partition(TOPIC), 4)
    [letter] = read_batch([stored], TOPICS, BookingMapper({}), moment(50)).dead
    return letter


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (ReplayFilter(), None),
        (ReplayFilter(since=moment(10)), None),
        (ReplayFilter(since=moment(10.000001)), SkipReason.OUTSIDE),
        (ReplayFilter(until=moment(10)), SkipReason.OUTSIDE),
        (ReplayFilter(until=moment(10.000001)), None),
        (ReplayFilter(accounts=frozenset({"other", "support"})), None),
        (ReplayFilter(accounts=frozenset({"oncehub"})), SkipReason.OTHER_ACCOUNT),
    ],
)
def test_an_event_counts_by_its_account_and_by_when_it_was_received(
    wanted: ReplayFilter, reason: SkipReason | None
) -> None:
    assert skip_reason(appended(sample(1, at=3, received_at=moment(10)).to_record()), wanted) is reason


def test_what_was_received_by_a_clock_that_was_ahead_counts_by_when_it_was_appended() -> None:
    record = sample(1, received_at=LATER + timedelta(days=365)).to_record()
    assert received_at(appended(record)) == LATER
    assert (
        skip_reason(appended(record), ReplayFilter(since=LATER, until=LATER + timedelta(seconds=1))) is None
    )


def test_a_dead_letter_counts_by_its_account_and_by_when_it_was_set_aside() -> None:
    record = letter(sample(1).to_record()).to_record()
    assert received_at(appended(record)) == moment(50)
    assert (
        skip_reason(appended(record, TOPICS.dead_letters), ReplayFilter(accounts=frozenset({"support"})))
        is None
    )
    assert (
        skip_reason(appended(record, TOPICS.dead_letters), ReplayFilter(until=moment(50)))
        is SkipReason.OUTSIDE
    )


@pytest.mark.parametrize(
    "headers", [{}, {"ce_time": "yesterday"}, {"ce_receivedat": "never", "ce_time": "2026-05-01T09:00:00Z"}]
)
def test_what_is_not_ours_counts_by_when_it_was_appended(headers: dict[str, str]) -> None:
    assert received_at(appended(Record("key", b"", headers))) == LATER
    assert skip_reason(appended(Record("key", b"", headers)), ReplayFilter(since=LATER)) is None
    assert skip_reason(appended(Record("key", b"", headers)), ReplayFilter(accounts=frozenset({""}))) is None


def test_probes_of_the_log_are_not_replayed() -> None:
    [record] = probe_records(Settings(log="kafka://127.0.0.1:9092"))
    assert skip_reason(appended(record, TOPICS.audit), ReplayFilter()) is SkipReason.PROBE


def test_nothing_is_replayed_twice() -> None:
    once = as_replay(appended(sample(1).to_record()))
    assert skip_reason(appended(once), ReplayFilter()) is SkipReason.REPLAY
    set_aside = letter(sample(1).to_record()).to_record()
    assert (
        skip_reason(appended(as_replay(appended(set_aside)), TOPICS.dead_letters), ReplayFilter())
        is SkipReason.REPLAY
    )


@pytest.mark.parametrize(("first", "reason"), [(0, SkipReason.REPLAY), (3, SkipReason.REPLAY), (4, None)])
def test_a_copy_is_replayed_once_its_original_is_no_longer_in_the_log(
    first: int, reason: SkipReason | None
) -> None:
    original = StoredRecord(sample(1).to_record(), Partition(TOPIC, 2), 3)
    copy = StoredRecord(as_replay(original), Partition(TOPIC, 2), 9, LATER.timestamp())
    assert skip_reason(copy, ReplayFilter(), {Partition(TOPIC, 2): first}.__getitem__) is reason
    assert as_replay(copy) == as_replay(original), "it still tells whose place it takes"


def test_the_dead_letter_of_a_replay_is_left_out_because_what_it_repeats_is_there() -> None:
    record = letter(as_replay(appended(sample(1).to_record()))).to_record()
    assert skip_reason(appended(record, TOPICS.dead_letters), ReplayFilter()) is SkipReason.REPLAY


@pytest.mark.parametrize("headers", ["", "{", "[]", '{"ce_via":"webhook"}'])
def test_a_dead_letter_whose_headers_say_nothing_of_a_replay_is_replayed(headers: str) -> None:
    assert (
        skip_reason(
            appended(Record("key", b"", {"dl_headers": headers}), TOPICS.dead_letters), ReplayFilter()
        )
        is None
    )
