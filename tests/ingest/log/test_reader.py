"""The contract of readers: everything from an instant to the end of the log, in order."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from ingest.errors import LogUnavailable
from ingest.log import Reader, Record
from ingest.log.kafka import KafkaLogReader
from ingest.log.sqlite import SqliteReader
from tests.ingest.log.harness import KafkaFixture, LogFixture, SqliteFixture, append, numbered, read
from tests.support.ports import free_port


@contextmanager
def reading(log: LogFixture, since: datetime | None = None) -> Iterator[Reader]:
    with closing(opened(log, since)) as reader:
        yield reader


def opened(log: LogFixture, since: datetime | None) -> Reader:
    return log.log().reader(since)


def values(reader: Reader) -> list[bytes]:
    return [stored.record.value for stored in reader.records()]


def test_it_reads_every_record_of_every_topic_as_it_was_appended(log: LogFixture) -> None:
    producer = log.producer()
    appended = [
        Record(f"booking-{number}", b"\xff" * number, {"ce_id": str(number), "unicode": "Zoë"})
        for number in range(20)
    ]
    append(producer, log.topic, *appended[:10])
    append(producer, log.other_topic, *appended[10:])
    with reading(log) as reader:
        assert reader.total() == 20
        records = list(reader.records())
    assert (
        sorted((stored.record for stored in records), key=lambda record: int(record.headers["ce_id"]))
        == appended
    )
    assert {stored.partition.topic for stored in records[:10]} == {log.topic}
    assert len({stored.position for stored in records}) == 20


def test_records_of_one_key_keep_their_order_and_all_come_by_time(log: LogFixture) -> None:
    producer = log.producer()
    for start in range(0, 2400, 200):
        append(
            producer,
            [log.topic, log.other_topic][start % 400 // 200],
            *(numbered(1, f"b-{n % 7}", n)[0] for n in range(start, start + 200)),
        )
    with reading(log) as reader:
        records = list(reader.records())
    assert [stored.appended_at for stored in records] == sorted(stored.appended_at for stored in records)
    by_key: dict[tuple[str, str], list[int]] = defaultdict(list)
    for stored in records:
        by_key[stored.partition.topic, stored.record.key].append(int(stored.record.value))
    assert all(numbers == sorted(numbers) for numbers in by_key.values())
    assert sorted(number for numbers in by_key.values() for number in numbers) == list(range(2400))


def test_what_is_appended_after_it_was_opened_is_not_read(log: LogFixture) -> None:
    producer = log.producer()
    append(producer, log.topic, *numbered(5))
    with reading(log) as reader:
        append(producer, log.topic, *numbered(5, start=5))
        append(producer, log.other_topic, *numbered(5, start=5))
        assert values(reader) == [b"0", b"1", b"2", b"3", b"4"]


def test_it_begins_with_the_first_record_that_was_appended_since(log: LogFixture) -> None:
    producer = log.producer()
    append(producer, log.topic, *numbered(5))
    since = past(datetime.now(UTC))
    append(producer, log.topic, *numbered(5, start=5))
    append(producer, log.other_topic, *numbered(1, start=10))
    with reading(log, since) as reader:
        assert reader.total() == 6
        assert values(reader) == [b"5", b"6", b"7", b"8", b"9", b"10"]
        begins = reader.begins_at()
        assert begins
        assert begins < since
    with reading(log, datetime.now(UTC) + timedelta(hours=1)) as reader:
        assert (reader.total(), values(reader)) == (0, [])


def test_it_begins_with_an_offset_of_each_partition(log: LogFixture) -> None:
    producer = log.producer()
    append(producer, log.topic, *numbered(20))
    with closing(log.log().reader(None, [log.topic])) as reader:
        records = list(reader.records())
    last = {stored.partition.number: stored.offset for stored in records}
    append(producer, log.topic, *numbered(5, start=20))
    expected = [
        stored.record.value for stored in records if stored.offset == last[stored.partition.number]
    ] + [b"20", b"21", b"22", b"23", b"24"]
    with closing(log.log().reader(last, [log.topic])) as reader:
        assert sorted(values(reader)) == sorted(expected)
    beyond = {number: offset + 100 for number, offset in last.items()}
    with closing(log.log().reader(beyond, [log.topic])) as reader:
        assert values(reader) == []


def past(instant: datetime) -> datetime:
    """Return the next millisecond when it is over: Kafka has no finer times."""
    later = instant + timedelta(milliseconds=2)
    while datetime.now(UTC) <= later:
        time.sleep(0.001)
    return later


def test_a_log_that_has_nothing_gives_nothing(log: LogFixture) -> None:
    log.consumer()
    with reading(log) as reader:
        assert (reader.total(), reader.begins_at(), values(reader)) == (0, None, [])


def test_a_group_stays_where_it_is(log: LogFixture) -> None:
    append(log.producer(), log.topic, *numbered(4))
    consumer = log.consumer()
    consumer.commit(read(consumer, 1))
    with reading(log) as reader:
        assert len(values(reader)) == 4
    assert sum(entry.lag for entry in log.backlog()) == 3
    assert len(read(consumer, 3)) == 3


def test_large_records_are_read_too(log: LogFixture) -> None:
    producer = log.producer()
    for number in range(4):
        append(producer, log.topic, Record("booking-1", bytes([number]) * 1024 * 1024))
    with reading(log) as reader:
        assert [value[0] for value in values(reader)] == [0, 1, 2, 3]


def test_what_retention_deleted_is_left_out_and_the_log_says_from_when_it_has_records(
    sqlite_log: SqliteFixture,
) -> None:
    producer, consumer = sqlite_log.producer(), sqlite_log.consumer()
    append(producer, sqlite_log.topic, *numbered(3))
    consumer.commit(read(consumer, 3))
    cut = past(datetime.now(UTC))
    append(producer, sqlite_log.topic, *numbered(3, start=3))
    consumer.commit(read(consumer, 3))
    with reading(sqlite_log) as reader:
        consumer.prune(cut.timestamp())  # type: ignore[attr-defined]  # the embedded log's own
        assert values(reader) == [b"3", b"4", b"5"]
    with reading(sqlite_log) as reader:
        begins = reader.begins_at()
        assert reader.total() == 3
        assert begins
        assert begins >= cut


def test_a_log_that_is_not_there_is_unavailable(sqlite_log: SqliteFixture) -> None:
    with pytest.raises(LogUnavailable, match=r"log\.db"):
        SqliteReader(sqlite_log.path, [sqlite_log.topic], None)
    assert not sqlite_log.path.exists()


def test_brokers_that_are_not_there_are_unavailable() -> None:
    log = KafkaFixture([f"127.0.0.1:{free_port()}"])
    with pytest.raises(LogUnavailable, match=r"Kafka at 127\.0\.0\.1"):
        KafkaLogReader(log.servers, log.settings, [log.topic], None)
