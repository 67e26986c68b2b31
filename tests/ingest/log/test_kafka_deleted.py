"""Records that Kafka's retention deleted before they were read are reported once."""

from collections.abc import Callable
from contextlib import closing

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.errors import KafkaTimeoutError
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ingest.errors import LogUnavailable
from ingest.log import Consumer, Partition, PositionChange
from ingest.log.kafka import KafkaLogConsumer
from ingest.settings import ConsumerSettings, Settings
from tests.ingest.log.harness import KafkaFixture, append, numbered, read, values
from tests.support.polling import Deadline

pytestmark = pytest.mark.kafka

Told = list[tuple[Partition, int]]


@pytest.fixture
def log(kafka_log: KafkaFixture) -> KafkaFixture:
    """Whose topics have one partition each."""
    kafka_log.settings = kafka_log.settings.model_copy(update={"partitions": 1})
    return kafka_log


@pytest.fixture
def reports() -> Told:
    return []


def open_telling(log: KafkaFixture, reports: Told) -> Consumer:
    def report(change: PositionChange) -> None:
        reports.append((change.partition, change.now - change.before))

    consumer = KafkaLogConsumer(log.servers, log.settings, log.group, [log.topic, log.other_topic], report)
    log._consumers.append(consumer)
    return consumer


def delete_before(log: KafkaFixture, offset: int) -> None:
    """Delete records at once, as retention does some time."""
    with closing(KafkaAdminClient(bootstrap_servers=log.servers)) as admin:
        admin.delete_records({TopicPartition(log.topic, 0): offset})


def commit_of(log: KafkaFixture) -> int:
    with closing(KafkaAdminClient(bootstrap_servers=log.servers)) as admin:
        offset: int = admin.list_group_offsets({log.group: [TopicPartition(log.topic, 0)]})[log.group][
            TopicPartition(log.topic, 0)
        ].offset
        return offset


def poll_until(consumer: Consumer, is_done: Callable[[], object]) -> None:
    deadline = Deadline("what is polled for happens")
    while not is_done():
        deadline.check()
        consumer.poll(10, 0.5)


def test_what_was_deleted_while_no_consumer_ran_is_told_once(log: KafkaFixture, reports: Told) -> None:
    append(log.producer(), log.topic, *numbered(10))
    first = open_telling(log, reports)
    first.commit(read(first, 2))
    log.leave(first)
    delete_before(log, 7)
    again = open_telling(log, reports)
    records = read(again, 3)
    assert values(records) == [b"7", b"8", b"9"]
    assert reports == [(Partition(log.topic), 5)]
    assert again.changes() == [PositionChange(Partition(log.topic), 2, 7)]
    assert again.changes() == []
    again.rewind()
    assert values(read(again, 3)) == [b"7", b"8", b"9"]
    again.commit(records)
    log.leave(again)
    open_telling(log, reports).poll(10, 1.0)
    assert reports == [(Partition(log.topic), 5)]


def test_it_is_told_once_though_nothing_newer_ever_comes(log: KafkaFixture, reports: Told) -> None:
    append(log.producer(), log.topic, *numbered(10))
    first = open_telling(log, reports)
    first.commit(read(first, 2)[:1])
    log.leave(first)
    delete_before(log, 10)
    for _ in range(2):
        again = open_telling(log, reports)
        poll_until(again, lambda: commit_of(log) == 10)
        log.leave(again)
    assert reports == [(Partition(log.topic), 9)]


def test_what_was_deleted_under_a_consumer_that_could_not_load_is_told(
    log: KafkaFixture, reports: Told
) -> None:
    append(log.producer(), log.topic, *numbered(10))
    consumer = open_telling(log, reports)
    consumer.commit(read(consumer, 10)[:2])
    consumer.rewind()
    delete_before(log, 7)
    assert values(read(consumer, 3)) == [b"7", b"8", b"9"]
    assert reports == [(Partition(log.topic), 5)]
    append(log.producer(), log.topic, *numbered(1, start=10))
    assert values(read(consumer, 1)) == [b"10"]
    assert reports == [(Partition(log.topic), 5)]


def test_a_group_that_is_new_misses_nothing(log: KafkaFixture, reports: Told) -> None:
    append(log.producer(), log.topic, *numbered(10))
    delete_before(log, 7)
    assert values(read(open_telling(log, reports), 3)) == [b"7", b"8", b"9"]
    assert reports == []


def test_what_was_read_may_go(log: KafkaFixture, reports: Told) -> None:
    append(log.producer(), log.topic, *numbered(10))
    consumer = open_telling(log, reports)
    consumer.commit(read(consumer, 10))
    delete_before(log, 10)
    append(log.producer(), log.topic, *numbered(1, start=10))
    assert values(read(consumer, 1)) == [b"10"]
    log.leave(consumer)
    open_telling(log, reports).poll(10, 1.0)
    assert reports == []


def test_the_markers_of_a_transaction_are_no_records_that_are_gone(log: KafkaFixture, reports: Told) -> None:
    append(log.producer(), log.topic, *numbered(1))
    foreign = KafkaProducer(bootstrap_servers=log.servers, transactional_id=log.group)
    foreign.init_transactions()
    for value in (b"1", b"2"):
        foreign.begin_transaction()
        foreign.send(log.topic, value=value)
        foreign.commit_transaction()
    foreign.close()
    records = read(open_telling(log, reports), 3)
    assert [stored.offset for stored in records] == [0, 1, 3]
    assert reports == []


def test_it_is_logged_and_counted(log: KafkaFixture) -> None:
    chosen = {"topic_prefix": log.group, "kafka": log.settings, "consumer": ConsumerSettings(group=log.group)}
    settings = Settings(log="kafka://" + ",".join(log.servers), **chosen)
    log.topic = settings.topic("calendly")
    with closing(settings.build_log().producer()) as producer:
        append(producer, log.topic, *numbered(5))
    with closing(settings.build_log().consumer()) as consumer:
        consumer.commit(read(consumer, 5)[:1])
    delete_before(log, 3)
    with capture_logs() as logged, closing(settings.build_log().consumer()) as consumer:
        read(consumer, 2)
    assert (
        REGISTRY.get_sample_value("ingest_deleted_unread_total", {"topic": log.topic, "partition": "0"}) == 2
    )
    [line] = [line for line in logged if line["event"] == "log.deleted_unread"]
    assert (line["log_level"], line["topic"], line["partition"], line["records"]) == (
        "error",
        log.topic,
        0,
        2,
    )


def test_what_was_fetched_is_read_again_when_it_could_not_be_found_out(
    log: KafkaFixture, reports: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log.producer(), log.topic, *numbered(3))
    consumer = open_telling(log, reports)
    assert isinstance(consumer, KafkaLogConsumer)
    check = consumer._deleted.check
    failures: list[object] = []

    def fail_once(fetched: object, generation: int) -> None:
        if fetched and not failures:
            failures.append(fetched)
            raise KafkaTimeoutError("the brokers went away")
        check(fetched, generation)  # type: ignore[arg-type]  # it is what it was given

    monkeypatch.setattr(consumer._deleted, "check", fail_once)
    with pytest.raises(LogUnavailable, match="went away"):
        read(consumer, 3)
    assert values(read(consumer, 3)) == [b"0", b"1", b"2"]
