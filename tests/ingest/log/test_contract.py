"""The contract of every log."""

import os
import threading
import time
from collections import Counter, defaultdict

import pytest

from ingest.errors import LogUnavailable
from ingest.log import Partition, Record, StoredRecord
from tests.ingest.log.harness import LogFixture, append, numbered, read, values
from tests.support.polling import PATIENCE, Deadline


def test_what_was_appended_is_read(log: LogFixture) -> None:
    append(log.producer(), log.topic, Record("booking-1", b"created"))
    [stored] = read(log.consumer(), 1)
    assert stored.record == Record("booking-1", b"created")
    assert stored.partition.topic == log.topic
    assert stored.position == f"{log.topic}/{stored.partition.number}/{stored.offset}"


def test_one_lone_record_is_read_while_nothing_follows_it(log: LogFixture) -> None:
    producer, consumer = log.producer(), log.consumer()
    append(producer, log.topic, Record("booking-1", b"first"))
    assert values(read(consumer, 1)) == [b"first"]
    append(producer, log.topic, Record("booking-2", b"second"))
    assert values(read(consumer, 1)) == [b"second"]


def test_records_of_one_key_keep_their_order(log: LogFixture) -> None:
    producer = log.producer()
    appended = [
        producer.append(log.topic, [Record(f"booking-{number % 7}", str(number).encode())])
        for number in range(210)
    ]
    for future in appended:
        future.result(PATIENCE)
    by_key: dict[str, list[int]] = defaultdict(list)
    for stored in read(log.consumer(), 210):
        by_key[stored.record.key].append(int(stored.record.value))
    assert by_key == {f"booking-{key}": list(range(key, 210, 7)) for key in range(7)}


def test_records_of_one_key_share_a_partition_and_their_offsets_rise(log: LogFixture) -> None:
    append(log.producer(), log.topic, *numbered(50))
    polled = read(log.consumer(), 50)
    assert len({stored.partition for stored in polled}) == 1
    assert [stored.offset for stored in polled] == list(range(50))


def test_an_append_of_several_records_resolves_when_all_are_there(log: LogFixture) -> None:
    append(log.producer(), log.topic, *(Record(f"booking-{number}", b"") for number in range(40)))
    assert sum(entry.next for entry in log.backlog()) == 40


def test_an_append_of_nothing_resolves(log: LogFixture) -> None:
    assert log.producer().append(log.topic, []).result(PATIENCE) is None


def test_a_topic_nobody_announced_can_be_appended_to(log: LogFixture) -> None:
    append(log.producer(), log.other_topic, Record("booking-1", b"elsewhere"))
    [stored] = read(log.consumer(), 1)
    assert stored.partition.topic == log.other_topic


@pytest.mark.parametrize(
    "record",
    [
        Record(
            "booking-1",
            b"value",
            {"ce_id": "1", "ce_source": "/calendly/sales", "empty": "", "unicode": "Zoë 🎈"},
        ),
        Record("booking-1", b""),
        Record("booking-1", bytes(range(256))),
        Record("calendly/sales/Zoë/預約/🎈", b"value"),
        Record("", b"no key"),
        Record("booking-1", os.urandom(900_000), {"ce_id": "large"}),
        Record("booking-1", os.urandom(1024 * 1024), {f"header-{number}": "x" * 100 for number in range(20)}),
    ],
    ids=["headers", "empty value", "binary value", "unicode key", "empty key", "900 KB", "the largest body"],
)
def test_a_record_comes_back_as_it_was(log: LogFixture, record: Record) -> None:
    append(log.producer(), log.topic, record)
    [stored] = read(log.consumer(), 1)
    assert stored.record == record


def test_the_next_consumer_goes_on_exactly_where_the_last_committed(log: LogFixture) -> None:
    append(log.producer(), log.topic, *numbered(10))
    first = log.consumer()
    first.commit(read(first, 10)[:4])
    log.leave(first)
    assert values(read(log.consumer(), 6)) == [b"4", b"5", b"6", b"7", b"8", b"9"]


def test_a_commit_takes_the_newest_of_its_records_whatever_their_order(log: LogFixture) -> None:
    append(log.producer(), log.topic, *numbered(3))
    first = log.consumer()
    first.commit(read(first, 3)[::-1])
    append(log.producer(), log.topic, Record("booking-1", b"next"))
    log.leave(first)
    assert values(read(log.consumer(), 1)) == [b"next"]


def test_a_commit_of_nothing_changes_nothing(log: LogFixture) -> None:
    append(log.producer(), log.topic, *numbered(2))
    first = log.consumer()
    read(first, 2)
    first.commit([])
    log.leave(first)
    assert values(read(log.consumer(), 2)) == [b"0", b"1"]


def test_what_was_not_committed_is_read_again_by_the_next_consumer(log: LogFixture) -> None:
    append(log.producer(), log.topic, *numbered(5))
    first = log.consumer()
    assert len(read(first, 5)) == 5
    log.leave(first)
    assert values(read(log.consumer(), 5)) == [b"0", b"1", b"2", b"3", b"4"]


def test_rewind_reads_again_what_was_not_committed(log: LogFixture) -> None:
    append(log.producer(), log.topic, *numbered(6))
    consumer = log.consumer()
    consumer.commit(read(consumer, 6)[:2])
    consumer.rewind()
    assert values(read(consumer, 4)) == [b"2", b"3", b"4", b"5"]


def test_rewind_with_nothing_committed_reads_from_the_start(log: LogFixture) -> None:
    append(log.producer(), log.topic, *numbered(4))
    consumer = log.consumer()
    read(consumer, 4)
    consumer.rewind()
    assert values(read(consumer, 4)) == [b"0", b"1", b"2", b"3"]
    consumer.rewind()
    assert values(read(consumer, 4)) == [b"0", b"1", b"2", b"3"]


def test_rewind_gives_up_what_was_fetched_but_not_polled(log: LogFixture) -> None:
    append(log.producer(), log.topic, *numbered(10))
    consumer = log.consumer()
    consumer.commit(read(consumer, 2))
    assert values(read(consumer, 2)) == [b"2", b"3"]
    consumer.rewind()
    assert values(read(consumer, 8)) == [str(number).encode() for number in range(2, 10)]


def test_rewind_before_the_first_poll_does_nothing(log: LogFixture) -> None:
    append(log.producer(), log.topic, *numbered(1))
    consumer = log.consumer()
    consumer.rewind()
    assert values(read(consumer, 1)) == [b"0"]


def test_poll_waits_as_long_as_it_was_told_and_returns_nothing_when_there_is_nothing(log: LogFixture) -> None:
    append(log.producer(), log.topic, *numbered(1))
    consumer = log.consumer()
    read(consumer, 1)
    started = time.monotonic()
    assert consumer.poll(10, 0.5) == []
    assert 0.4 < time.monotonic() - started < 5


def test_poll_returns_as_soon_as_something_comes(log: LogFixture) -> None:
    producer, consumer = log.producer(), log.consumer()
    append(producer, log.topic, *numbered(1))
    read(consumer, 1)
    later = threading.Timer(0.2, lambda: producer.append(log.topic, [Record("booking-1", b"later")]))
    later.start()
    started = time.monotonic()
    assert values(consumer.poll(10, PATIENCE)) == [b"later"]
    assert time.monotonic() - started < PATIENCE / 2
    later.join()


def test_poll_keeps_to_the_limit_and_loses_nothing(log: LogFixture) -> None:
    producer = log.producer()
    for key in range(5):
        append(producer, log.topic, *numbered(13, f"booking-{key}"))
        append(producer, log.other_topic, *numbered(13, f"other-{key}"))
    consumer = log.consumer()
    polls: list[list[StoredRecord]] = []
    deadline = Deadline("130 records can be read")
    while sum(map(len, polls)) < 130:
        deadline.check()
        polls.append(consumer.poll(7, 1.0))
    assert max(map(len, polls)) <= 7
    by_key: dict[str, list[int]] = defaultdict(list)
    for stored in (stored for poll in polls for stored in poll):
        by_key[stored.record.key].append(int(stored.record.value))
    assert by_key == {f"{name}-{key}": list(range(13)) for name in ("booking", "other") for key in range(5)}


def test_poll_keeps_to_the_bytes_and_gives_each_record_however_large(log: LogFixture) -> None:
    producer = log.producer()
    large = 300_000
    for number in range(12):  # some compress well: what is fetched tells little of what they take
        append(producer, log.topic, Record(f"booking-{number}", bytes(large)))
        append(producer, log.other_topic, Record(f"other-{number}", os.urandom(large)))
    consumer = log.consumer()
    polls: list[list[StoredRecord]] = []
    deadline = Deadline("24 records can be read")
    while sum(map(len, polls)) < 24:
        deadline.check()
        polls.append(consumer.poll(100, 1.0, max_bytes=2 * large))
    assert max(sum(len(stored.record.value) for stored in poll) for poll in polls) <= 3 * large
    assert len({stored.record.key for poll in polls for stored in poll}) == 24
    append(producer, log.topic, *numbered(2))
    assert len(consumer.poll(100, PATIENCE, max_bytes=1)) == 1


def test_every_record_of_several_producers_and_threads_is_there_once(log: LogFixture) -> None:
    producers = [log.producer() for _ in range(3)]
    failed: list[BaseException] = []

    def write(name: str, number: int) -> None:
        futures = [
            producers[number].append(log.topic, [Record(f"{name}-{count % 5}", f"{name}/{count}".encode())])
            for count in range(60)
        ]
        failed.extend(error for future in futures if (error := future.exception(PATIENCE)))

    threads = [threading.Thread(target=write, args=(f"thread-{number}", number % 3)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    consumer = log.consumer()
    expected = Counter(f"thread-{number}/{count}".encode() for number in range(12) for count in range(60))
    assert Counter(values(read(consumer, 720))) == expected
    assert consumer.poll(1, 0.5) == []


def test_backlog_says_what_is_left(log: LogFixture) -> None:
    append(log.producer(), log.topic, *numbered(8))
    consumer = log.consumer()
    consumer.commit(read(consumer, 8)[:3])
    for backlog in (log.backlog(), consumer.backlog()):
        [entry] = [entry for entry in backlog if entry.next]
        assert entry.partition.topic == log.topic
        assert (entry.next, entry.committed, entry.lag) == (8, 3, 5)
        assert {entry.partition.topic for entry in backlog} == {log.topic, log.other_topic}


def test_backlog_counts_all_when_the_group_never_read(log: LogFixture) -> None:
    append(log.producer(), log.topic, *numbered(8))
    assert sum(entry.lag for entry in log.backlog()) == 8


def test_backlog_of_topics_that_are_not_there_is_no_lag(log: LogFixture) -> None:
    assert sum(entry.lag for entry in log.backlog()) == 0


def test_generation_stays_while_nothing_moves(log: LogFixture) -> None:
    append(log.producer(), log.topic, *numbered(2))
    consumer = log.consumer()
    read(consumer, 2)
    generation = consumer.generation()
    consumer.poll(1, 0.1)
    consumer.rewind()
    read(consumer, 2)
    assert consumer.generation() == generation


def test_an_append_after_close_fails(log: LogFixture) -> None:
    producer = log.producer()
    append(producer, log.topic, Record("booking-1", b"in time"))
    producer.close()
    assert isinstance(
        producer.append(log.topic, [Record("booking-1", b"too late")]).exception(PATIENCE), LogUnavailable
    )
    producer.close()


def test_close_waits_for_what_was_appended(log: LogFixture) -> None:
    producer = log.producer()
    futures = [producer.append(log.topic, [record]) for record in numbered(200)]
    producer.close()
    assert [future.done() and future.exception() for future in futures] == [None] * 200


def test_an_append_to_a_log_that_cannot_take_it_fails(log: LogFixture) -> None:
    producer = log.unavailable_producer()
    futures = [producer.append(log.topic, [Record("booking-1", b"")]) for _ in range(20)]
    assert {type(future.exception(10)) for future in futures} == {LogUnavailable}


def test_an_append_cannot_be_cancelled(log: LogFixture) -> None:
    future = log.producer().append(log.topic, [Record("booking-1", b"kept")])
    assert not future.cancel()
    future.result(PATIENCE)
    assert values(read(log.consumer(), 1)) == [b"kept"]


def test_partitions_are_named_by_topic_and_number() -> None:
    assert (
        Partition("bookings.calendly", 2)
        == Partition("bookings.calendly", 2)
        != Partition("bookings.calendly", 3)
    )
