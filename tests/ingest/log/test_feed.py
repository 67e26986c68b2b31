"""The contract of the feed: changes and offsets are committed together, and followers see both or none."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Consumer as LibrdkafkaConsumer
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from ingest.errors import CommitFailed, LogUnavailable
from ingest.log import Consumer, Follower, Record, Start, StoredRecord
from ingest.log.kafka import KafkaLogConsumer
from ingest.log.kafka.transactions import group_metadata
from ingest.log.sqlite import SqliteConsumer
from tests.ingest.log.harness import KafkaFixture, LogFixture, SqliteFixture, append, numbered, read, values
from tests.support.polling import Deadline


@contextmanager
def following(log: LogFixture, start: Start = None) -> Iterator[Follower]:
    with closing(log.log().follower(log.feed, start)) as follower:
        yield follower


def followed(follower: Follower, count: int, at_once: int = 100) -> list[StoredRecord]:
    """Return so many next records of a follower, of which it polls some at once."""
    records: list[StoredRecord] = []
    deadline = Deadline("the records can be followed")
    while len(records) < count:
        deadline.check()
        records += follower.poll(at_once, 0.2)
    return records


def published(log: LogFixture) -> list[bytes]:
    with closing(log.log().reader(None, [log.feed])) as reader:
        return values(list(reader.records()))


def polled(log: LogFixture, count: int = 1) -> tuple[Consumer, list[StoredRecord]]:
    """Return a consumer that has polled so many records, which it has not committed."""
    append(log.producer(), log.topic, *numbered(count))
    consumer = log.consumer()
    return consumer, read(consumer, count)


def lag(log: LogFixture) -> int:
    return sum(entry.lag for entry in log.backlog())


def test_changes_are_published_by_the_commit(log: LogFixture) -> None:
    consumer, records = polled(log)
    change = Record("booking-1", b"changed", {"ce_type": "ingest.booking.changed", "unicode": "Zoë"})
    consumer.commit(records, "", [change])
    assert lag(log) == 0
    with following(log, {}) as follower:
        [stored] = followed(follower, 1)
        assert stored.record == change
        assert stored.partition.topic == log.feed


def test_changes_of_one_key_stay_in_the_order_of_the_commits(log: LogFixture) -> None:
    consumer, records = polled(log, 5)
    for number, record in enumerate(records):
        consumer.commit([record], "", numbered(3, start=3 * number))
    assert published(log) == [str(number).encode() for number in range(15)]


def test_a_follower_begins_at_the_end_and_goes_on(log: LogFixture) -> None:
    consumer, records = polled(log, 2)
    consumer.commit(records[:1], "", numbered(2))
    with following(log) as follower:
        assert follower.poll(10, 0.0) == []
        consumer.commit(records[1:], "", numbered(2, start=2))
        assert values(followed(follower, 2)) == [b"2", b"3"]


def test_a_follower_resumes_at_a_position(log: LogFixture) -> None:
    consumer, records = polled(log)
    consumer.commit(records, "", numbered(6))
    with following(log, {}) as follower:
        first = followed(follower, 3, at_once=1)
        position = follower.position()
    with following(log, position) as follower:
        assert values(first + followed(follower, 3)) == [str(number).encode() for number in range(6)]


def test_a_follower_begins_at_a_time(log: LogFixture) -> None:
    consumer, records = polled(log)
    consumer.commit(records, "", numbered(2))
    now = datetime.now(UTC)
    with following(log, now - timedelta(minutes=5)) as follower:
        assert len(followed(follower, 2)) == 2
    with following(log, now + timedelta(minutes=5)) as follower:
        assert follower.poll(10, 0.2) == []


def test_the_feed_needs_no_group_to_be_pruned(sqlite_log: SqliteFixture) -> None:
    consumer, records = polled(sqlite_log)
    assert isinstance(consumer, SqliteConsumer)
    consumer.commit(records, "", numbered(3))
    consumer.prune(before=2 * datetime.now(UTC).timestamp())
    assert published(sqlite_log) == []


def test_a_commit_that_fails_publishes_nothing(sqlite_log: SqliteFixture) -> None:
    consumer, records = polled(sqlite_log)
    with closing(sqlite3.connect(sqlite_log.path)) as connection:
        connection.execute("DROP TABLE bookmarks")
        with pytest.raises(LogUnavailable):
            consumer.commit(records, "", numbered(3))
        assert connection.execute(
            "SELECT count(*) FROM records WHERE topic = ?", [sqlite_log.feed]
        ).fetchone() == (0,)


def test_a_follower_of_an_older_copy_reads_what_that_has(sqlite_log: SqliteFixture) -> None:
    consumer, records = polled(sqlite_log)
    consumer.commit(records, "", numbered(2))
    with following(sqlite_log, {0: 7}) as follower:
        assert values(followed(follower, 2)) == [b"0", b"1"]


@pytest.mark.kafka
def test_a_consumer_of_a_generation_that_is_over_publishes_and_commits_nothing(
    kafka_log: KafkaFixture,
) -> None:
    consumer, records = polled(kafka_log, 2)
    assert isinstance(consumer, KafkaLogConsumer)
    consumer.commit(records[:1], "", numbered(1))
    member = consumer._consumer.group_metadata()
    older = replace_generation(consumer, member.generation_id - 1)
    with pytest.raises(CommitFailed):
        consumer.commit(records[1:], "", numbered(1, start=1))
    assert (published(kafka_log), lag(kafka_log)) == ([b"0"], 1)
    older.undo()
    consumer.rewind()
    consumer.commit(read(consumer, 1), "", numbered(1, start=2))
    assert (published(kafka_log), lag(kafka_log)) == ([b"0", b"2"], 0)


def replace_generation(consumer: KafkaLogConsumer, generation: int) -> pytest.MonkeyPatch:
    """Make the consumer believe in another generation of its group, as one that was frozen does."""
    patch = pytest.MonkeyPatch()
    member: Any = consumer._consumer.group_metadata()
    stale = Member(member.group_id, member.member_id, generation)
    patch.setattr(consumer._consumer, "group_metadata", lambda: stale)
    return patch


@pytest.mark.kafka
def test_nobody_sees_a_transaction_that_is_not_over(
    kafka_log: KafkaFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer, records = polled(kafka_log, 2)
    assert isinstance(consumer, KafkaLogConsumer)
    consumer.commit(records[:1], "", numbered(1))
    client = consumer._transactions._client
    assert client is not None
    monkeypatch.setattr(consumer._transactions, "_client", Unfinished(client))
    with pytest.raises(KeyboardInterrupt):
        consumer.commit(records[1:], "", numbered(3, start=1))
    assert (published(kafka_log), lag(kafka_log)) == ([b"0"], 1)
    consumer.commit(records[1:], "", numbered(1, start=9))  # by a new client, which aborts what was left open
    assert (published(kafka_log), lag(kafka_log)) == ([b"0", b"9"], 0)


class Unfinished:
    """A client that dies before it commits its transaction."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def commit_transaction(self, *_: Any) -> None:
        raise KeyboardInterrupt

    def abort_transaction(self, *_: Any) -> None:
        """Leave it open."""


@pytest.mark.kafka
def test_the_next_consumer_has_the_bookmarks_of_a_commit_with_changes(kafka_log: KafkaFixture) -> None:
    consumer, records = polled(kafka_log, 2)
    consumer.commit(records[:1], "load-1", numbered(1))
    before = consumer.bookmarks()[records[0].partition]
    kafka_log.leave(consumer)
    again = kafka_log.consumer()
    [record] = read(again, 1)
    assert again.bookmarks()[record.partition] == before
    again.commit([record], "load-2", numbered(1, start=1))
    assert published(kafka_log) == [b"0", b"1"]


@pytest.mark.kafka
def test_of_each_booking_kafka_keeps_the_newest_state(kafka_log: KafkaFixture) -> None:
    consumer, records = polled(kafka_log)
    consumer.commit(records, "", numbered(1))
    with closing(KafkaAdminClient(bootstrap_servers=kafka_log.servers)) as admin:
        configs = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, kafka_log.feed)])
    assert "compact" in str(configs)


def test_members_of_a_group_are_written_as_librdkafka_writes_them() -> None:
    consumer = LibrdkafkaConsumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "a group", "log_level": 0})
    try:
        expected = consumer.consumer_group_metadata()
    finally:
        consumer.close()
    assert group_metadata(Member("a group", "", -1)) == expected


class Member:
    """A member of a group as kafka-python tells of it."""

    def __init__(self, group_id: str, member_id: str, generation_id: int) -> None:
        self.group_id, self.member_id, self.generation_id = group_id, member_id, generation_id
