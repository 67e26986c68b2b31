"""A Kafka log that is not the one in which the group's position was taken is read again."""

from collections.abc import Callable
from contextlib import closing

import pytest
from kafka import KafkaAdminClient, OffsetAndMetadata, TopicPartition

from ingest.errors import CommitFailed
from ingest.log import Consumer, Partition, PositionChange, Record, StoredRecord
from ingest.log.kafka import KafkaLogConsumer, history
from tests.ingest.log.harness import KafkaFixture, append, numbered, read, values
from tests.kafka.broker import Broker
from tests.support.polling import Deadline, wait_for

pytestmark = pytest.mark.kafka


@pytest.fixture
def log(kafka_log: KafkaFixture) -> KafkaFixture:
    """Whose topics have one partition each."""
    kafka_log.settings = kafka_log.settings.model_copy(update={"partitions": 1})
    return kafka_log


def opened(log: KafkaFixture) -> KafkaLogConsumer:
    consumer = log.consumer()
    assert isinstance(consumer, KafkaLogConsumer)
    return consumer


def make_anew(log: KafkaFixture, *records: Record) -> None:
    """Delete the topic, and make it again with these records."""
    with closing(KafkaAdminClient(bootstrap_servers=log.servers)) as admin:
        admin.delete_topics([log.topic])
        wait_for(lambda: admin.describe_topics([log.topic])[0]["error_code"] != 0, "the topic is gone")
    producer = log.producer()
    append(producer, log.topic, *records)


def read_until(consumer: Consumer, enough: Callable[[list[StoredRecord]], bool]) -> list[StoredRecord]:
    """Poll as the loader does, which drops records that were polled before the generation changed."""
    records: list[StoredRecord] = []
    generation, deadline = consumer.generation(), Deadline("the records can be read")
    while not enough(records):
        deadline.check()
        polled = consumer.poll(100, 0.5)
        if consumer.generation() != generation:
            consumer.rewind()
            generation, records, polled = consumer.generation(), [], []
        records += polled
    return records


def commit_of(log: KafkaFixture) -> OffsetAndMetadata:
    partition = TopicPartition(log.topic, 0)
    with closing(KafkaAdminClient(bootstrap_servers=log.servers)) as admin:
        records: OffsetAndMetadata = admin.list_group_offsets({log.group: [partition]})[log.group][partition]
        return records


@pytest.mark.parametrize(
    "count", [4, 10, 25], ids=["shorter than it was", "as long as it was", "longer than it was"]
)
def test_a_topic_that_is_made_anew_while_no_consumer_runs_is_read_from_its_beginning(
    log: KafkaFixture, count: int
) -> None:
    append(log.producer(), log.topic, *numbered(10))
    first = opened(log)
    first.commit(read(first, 10))
    log.leave(first)
    make_anew(log, *numbered(count, start=100))
    assert values(read_until(opened(log), lambda records: len(records) >= count)) == values_from(100, count)


@pytest.mark.parametrize(
    "count", [4, 10, 25], ids=["shorter than it was", "as long as it was", "longer than it was"]
)
def test_a_topic_that_is_made_anew_under_a_consumer_is_read_from_its_beginning(
    log: KafkaFixture, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_COMPARE_EVERY_SECONDS", 1.0)
    append(log.producer(), log.topic, *numbered(10))
    consumer = opened(log)
    consumer.commit(read(consumer, 10))
    make_anew(log, *numbered(count, start=100))
    records = read_until(consumer, lambda records: len(records) >= count)
    assert values(records) == values_from(100, count)
    assert consumer.changes() == [PositionChange(Partition(log.topic), 10, 0)]
    assert consumer.changes() == []
    consumer.commit(records)
    assert commit_of(log).offset == count


@pytest.mark.parametrize("count", [0, 10], ids=["empty", "with records"])
def test_a_topic_that_had_other_leaders_and_is_made_anew_is_read_from_its_beginning(
    broker: Broker, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_COMPARE_EVERY_SECONDS", 1.0)
    log = KafkaFixture(broker.servers, partitions=1)
    append(log.producer(), log.topic, *numbered(count))
    broker.stop()  # the next start is a new leader's epoch
    broker.start()
    with closing(log):
        consumer = opened(log)
        if count:
            consumer.commit(read(consumer, count))
        assert consumer.poll(1, 1.0) == []
        make_anew(log, *numbered(5, start=100))
        assert values(read_until(consumer, lambda records: len(records) >= 5)) == values_from(100, 5)


def test_what_was_polled_before_a_topic_was_made_anew_is_not_committed_in_it(log: KafkaFixture) -> None:
    append(log.producer(), log.topic, *numbered(5))
    consumer = opened(log)
    polled = read(consumer, 5)
    make_anew(log, *numbered(10, start=100))
    with pytest.raises(CommitFailed):
        consumer.commit(polled)
    assert values(read_until(consumer, lambda records: len(records) >= 10)) == values_from(100, 10)


def test_a_position_without_bookmarks_is_trusted(log: KafkaFixture) -> None:
    append(log.producer(), log.topic, *numbered(10))
    first = opened(log)
    read(first, 10)
    first._consumer.commit({TopicPartition(log.topic, 0): OffsetAndMetadata(4, "", -1)})
    log.leave(first)
    again = opened(log)
    assert values(read(again, 6)) == values_from(4, 6)
    assert again.changes() == []


def test_a_commit_keeps_bookmarks_and_the_load_that_it_needed(log: KafkaFixture) -> None:
    append(log.producer(), log.topic, *numbered(40))
    consumer = opened(log)
    for number in range(40):
        consumer.commit(read(consumer, 1), "" if number == 39 else f"load-{number}")
    log.leave(consumer)
    again = opened(log)
    again.poll(1, 5.0)
    bookmarks = again.bookmarks()[Partition(log.topic)]
    assert bookmarks.newest
    assert (bookmarks.newest.offset, bookmarks.newest.load) == (39, "load-38")
    assert len(bookmarks.marks) < 10
    assert bookmarks.log


def test_a_consumer_reads_again_from_a_bookmark_and_so_does_the_next(log: KafkaFixture) -> None:
    append(log.producer(), log.topic, *numbered(10))
    consumer = opened(log)
    consumer.commit(read(consumer, 4), "first")
    consumer.commit(read(consumer, 6), "second")
    [_, first] = consumer.bookmarks()[Partition(log.topic)].marks
    assert consumer.read_again({Partition(log.topic): first}) == {}
    assert commit_of(log).offset == 4
    assert values(read_until(consumer, lambda records: len(records) >= 6)) == values_from(4, 6)
    log.leave(consumer)
    assert values(read(opened(log), 6)) == values_from(4, 6)


@pytest.mark.parametrize("away", [False, True], ids=["under a consumer", "while no consumer runs"])
@pytest.mark.parametrize(
    "growth", [-1, 0, 15], ids=["shorter than it was", "as long as it was", "longer than it was"]
)
def test_what_a_log_gets_after_it_lost_its_tail_is_read(
    broker: Broker, growth: int, *, away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_COMPARE_EVERY_SECONDS", 1.0)
    with closing(KafkaFixture(broker.servers, partitions=1)) as log:
        producer, consumer = log.producer(), opened(log)
        for record in numbered(10):
            append(producer, log.topic, record)
            consumer.commit(read(consumer, 1))
        if away:
            log.leave(consumer)
        broker.kill()
        broker.lose_tail([log.topic], 0.45)
        broker.start()
        remaining = next(entry.next for entry in log.backlog() if entry.partition.topic == log.topic)
        assert 0 < remaining < 9
        count = 10 - remaining + growth
        append(log.producer(), log.topic, *numbered(count, start=100))
        if away:
            consumer = opened(log)
        records = read_until(consumer, lambda records: set(values(records)) >= set(values_from(100, count)))
        assert values(records)[-count:] == values_from(100, count)
        assert len(records) < count + remaining
        assert {change.partition.topic for change in consumer.changes()} <= {log.topic}


def test_commits_that_are_restored_with_the_log_are_older_than_what_the_consumer_knows(
    broker: Broker,
) -> None:
    with closing(KafkaFixture(broker.servers, partitions=1)) as log:
        producer, consumer = log.producer(), opened(log)
        for record in numbered(10):
            append(producer, log.topic, record)
        consumer.commit(read(consumer, 2))
        older = commit_of(log)
        consumer.commit(read(consumer, 8))
        broker.kill()
        broker.lose_tail([log.topic], 0.45)
        broker.start()
        consumer._consumer.commit(
            {TopicPartition(log.topic, 0): OffsetAndMetadata(older.offset, older.metadata, -1)}
        )
        append(log.producer(), log.topic, *numbered(15, start=100))
        records = read_until(consumer, lambda records: set(values(records)) >= set(values_from(100, 15)))
        assert values(records)[-15:] == values_from(100, 15)


def values_from(start: int, count: int) -> list[bytes]:
    return [record.value for record in numbered(count, start=start)]
