"""What only Kafka can do to us: brokers that are late, frozen or killed, partitions that move, records by other hands."""

import gc
import itertools
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import closing
from functools import partial

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from pydantic import SecretStr

from ingest.errors import CommitFailed, LogUnavailable
from ingest.log import Consumer, Partition, Producer, Record, StoredRecord
from ingest.log.kafka import KafkaLogConsumer, KafkaLogProducer, backlog
from ingest.log.kafka import consumer as consumer_module
from ingest.log.kafka_settings import KafkaSettings
from tests.kafka.broker import Broker, fetch, free_port, running_broker
from tests.log.harness import PATIENCE, KafkaLog, append, numbered, read, values

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning"),  # a socket per failed connection, by kafka-python
]

_QUICKLY = 6.0  # the receiver's limit is 4; this machine may be slow


@pytest.fixture(scope="module")
def own_broker(kafka_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:  # noqa: ARG001  it skips
    broker = Broker(fetch(), tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.stop()


@pytest.fixture
def broker(own_broker: Broker, caplog: pytest.LogCaptureFixture) -> Iterator[Broker]:
    """One that only these tests use, and that each of them finds running."""
    caplog.set_level(logging.CRITICAL, logger="kafka")  # its log records hold those sockets until after the filter
    own_broker.start()
    yield own_broker
    own_broker.thaw()
    for thread in threading.enumerate():
        if thread.name == "log-sender-before":
            thread.join(PATIENCE)
    gc.collect()  # the sockets of above, while the filter holds


def append_until_it_works(producer: Producer, log: KafkaLog, value: bytes) -> None:
    """Each attempt has an outcome in time."""
    deadline = time.monotonic() + PATIENCE
    while (error := producer.append(log.topic, [Record("booking-1", value)]).exception(_QUICKLY)) is not None:
        assert isinstance(error, LogUnavailable)
        assert time.monotonic() < deadline, error


class Traffic:
    """Appends a record every few milliseconds, whatever became of those before, and knows the outcome of each."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self.acknowledged: list[bytes] = []
        self.failed: list[bytes] = []
        self.slowest = 0.0
        self._producer, self._topic, self._stopped = producer, topic, threading.Event()
        self._futures: list[Future[None]] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait_for(self, outcome: list[bytes], more: int) -> None:
        deadline, enough = time.monotonic() + PATIENCE, len(outcome) + more
        while len(outcome) < enough:
            assert time.monotonic() < deadline
            assert not self._stopped.wait(0.02)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        wait(self._futures, PATIENCE)

    def _run(self) -> None:
        for number in itertools.count():
            if self._stopped.wait(0.02):
                return
            value, started = str(number).encode(), time.monotonic()
            self._futures.append(self._producer.append(self._topic, [Record(f"booking-{number % 5}", value)]))
            self._futures[-1].add_done_callback(partial(self._note, value, started))

    def _note(self, value: bytes, started: float, future: "Future[None]") -> None:
        self.slowest = max(self.slowest, time.monotonic() - started)
        (self.failed if future.exception() else self.acknowledged).append(value)


def wait_until_gone(threads: set[threading.Thread]) -> None:
    deadline = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(deadline - time.monotonic())
        assert not thread.is_alive(), thread


def test_a_producer_starts_before_its_broker(broker: Broker) -> None:
    log = KafkaLog(broker.servers)
    broker.kill()
    with closing(KafkaLogProducer(broker.servers, log.settings, [log.topic])) as producer:
        started = time.monotonic()
        failed = producer.append(log.topic, [Record("booking-1", b"too early")])
        assert isinstance(failed.exception(_QUICKLY), LogUnavailable)
        assert time.monotonic() - started < _QUICKLY
        broker.start()
        append_until_it_works(producer, log, b"in time")
    with closing(log):
        assert values(read(log.consumer(), 1)) == [b"in time"]


def test_append_returns_at_once_while_there_is_no_broker() -> None:
    with closing(KafkaLogProducer([f"127.0.0.1:{free_port()}"], KafkaSettings(), ["bookings.calendly"])) as producer:
        started = time.monotonic()
        futures = [producer.append("bookings.calendly", [Record("booking-1", b"")]) for _ in range(1000)]
        assert time.monotonic() - started < 1
        assert {type(future.exception(_QUICKLY)) for future in futures} == {LogUnavailable}


def test_an_outage_leaves_no_threads_behind() -> None:
    with closing(KafkaLogProducer([f"127.0.0.1:{free_port()}"], KafkaSettings(), ["bookings.calendly"])) as producer:
        producer.append("bookings.calendly", [Record("booking-1", b"")]).exception(_QUICKLY)
        before = set(threading.enumerate())
        for _ in range(5):
            producer.append("bookings.calendly", [Record("booking-1", b"")]).exception(_QUICKLY)
        assert set(threading.enumerate()) == before


def test_a_broker_that_accepts_and_does_not_answer_is_no_broker(broker: Broker) -> None:
    broker.freeze()
    before = set(threading.enumerate())
    with closing(KafkaLogProducer(broker.servers, KafkaSettings(), ["bookings.calendly"])) as producer:
        started = time.monotonic()
        futures = [producer.append("bookings.calendly", [Record("booking-1", b"")]) for _ in range(20)]
        assert {type(future.exception(_QUICKLY)) for future in futures} == {LogUnavailable}
        assert time.monotonic() - started < _QUICKLY
    wait_until_gone(set(threading.enumerate()) - before)


def test_a_broker_frozen_while_appending_fails_appends_in_time_and_loses_none(broker: Broker) -> None:
    log = KafkaLog(broker.servers)
    with closing(log), closing(KafkaLogProducer(broker.servers, log.settings, [log.topic])) as producer:
        traffic = Traffic(producer, log.topic)
        traffic.wait_for(traffic.acknowledged, 50)
        broker.freeze()
        traffic.wait_for(traffic.failed, 200)
        broker.thaw()
        traffic.wait_for(traffic.acknowledged, 50)
        traffic.stop()
        assert traffic.slowest < _QUICKLY
        written = sum(entry.next for entry in log.backlog())
        found = Counter(values(read(log.consumer(), written)))
    assert not [value for value in traffic.acknowledged if found[value] == 0]
    assert not [value for value in traffic.acknowledged if found[value] > 1]


def test_a_broker_killed_while_appending_loses_nothing_that_was_acknowledged(broker: Broker) -> None:
    log = KafkaLog(broker.servers)
    with closing(log), closing(KafkaLogProducer(broker.servers, log.settings, [log.topic])) as producer:
        traffic = Traffic(producer, log.topic)
        for _ in range(2):
            traffic.wait_for(traffic.acknowledged, 50)
            broker.kill()
            traffic.wait_for(traffic.failed, 2)
            broker.start()
        traffic.wait_for(traffic.acknowledged, 50)
        traffic.stop()
        assert traffic.slowest < _QUICKLY
        written = sum(entry.next for entry in log.backlog())
        found = Counter(values(read(log.consumer(), written)))
    assert not [value for value in traffic.acknowledged if found[value] != 1]


def test_a_broker_that_lost_everything_gets_its_topics_again(broker: Broker) -> None:
    log = KafkaLog(broker.servers)
    with closing(KafkaLogProducer(broker.servers, log.settings, [log.topic])) as producer:
        append(producer, log.topic, Record("booking-1", b"lost"))
        broker.kill()
        with running_broker(broker.port), closing(log):
            append_until_it_works(producer, log, b"after")
            assert values(read(log.consumer(), 1)) == [b"after"]


def test_close_does_not_hang_while_the_broker_is_frozen(broker: Broker) -> None:
    log, before = KafkaLog(broker.servers), set(threading.enumerate())
    producer, consumer = log.producer(), log.consumer()
    append(producer, log.topic, *numbered(3))
    read(consumer, 3)
    broker.freeze()
    traffic = Traffic(producer, log.topic)
    traffic.wait_for(traffic.failed, 100)
    stuck = producer.append(log.topic, numbered(1))
    started = time.monotonic()
    producer.close()
    assert isinstance(stuck.exception(_QUICKLY), LogUnavailable)
    consumer.close()
    assert time.monotonic() - started < 30
    traffic.stop()
    assert traffic.slowest < _QUICKLY
    wait_until_gone(set(threading.enumerate()) - before)


def test_a_consumer_reads_on_after_its_broker_was_away(broker: Broker) -> None:
    log = KafkaLog(broker.servers)
    with closing(log):
        producer, consumer = log.producer(), log.consumer()
        append(producer, log.topic, *numbered(3))
        consumer.commit(read(consumer, 3))
        broker.kill()
        consumer.poll(10, 0.5)
        broker.start()
        append_until_it_works(producer, log, b"after")
        assert values(read(consumer, 1)) == [b"after"]


def test_a_consumer_without_a_broker_says_where_it_looked() -> None:
    server = f"127.0.0.1:{free_port()}"
    with pytest.raises(LogUnavailable, match=server):
        KafkaLogConsumer([server], KafkaSettings(), "group", ["bookings.calendly"])
    with pytest.raises(LogUnavailable, match=server):
        backlog([server], KafkaSettings(), "group", ["bookings.calendly"])


def test_a_commit_without_a_broker_is_no_commit(broker: Broker) -> None:
    log = KafkaLog(broker.servers)
    with closing(log):
        consumer = log.consumer()
        append(log.producer(), log.topic, *numbered(3))
        found = read(consumer, 3)
        broker.kill()
        with pytest.raises(LogUnavailable, match=broker.servers[0]):
            consumer.commit(found)
        consumer.rewind()
        broker.start()
        assert values(read(consumer, 3)) == [b"0", b"1", b"2"]


def test_topics_are_made_as_the_settings_say(kafka_log: KafkaLog) -> None:
    kafka_log.settings = KafkaSettings(partitions=5)
    append(kafka_log.producer(), kafka_log.topic, *numbered(1))
    assert [entry.partition.number for entry in kafka_log.backlog()] == [0, 1, 2, 3, 4]


def test_a_topic_that_cannot_be_made_is_named(kafka_log: KafkaLog) -> None:
    kafka_log.settings = KafkaSettings(replication_factor=3)
    error = kafka_log.producer().append(kafka_log.topic, numbered(1)).exception(PATIENCE)
    assert isinstance(error, LogUnavailable)
    assert kafka_log.topic in str(error)
    assert "kafka.replication_factor" in str(error)


def test_a_record_the_broker_refuses_fails_alone(kafka_log: KafkaLog) -> None:
    with closing(KafkaAdminClient(bootstrap_servers=kafka_log.servers)) as admin:
        small = {"num_partitions": 1, "replication_factor": 1, "configs": {"max.message.bytes": "100000"}}
        admin.create_topics({kafka_log.topic: small}, wait_for_metadata=True)
    producer = kafka_log.producer()
    for number in range(3):
        refused = producer.append(kafka_log.topic, [Record("booking-1", os.urandom(200_000))])
        assert isinstance(refused.exception(_QUICKLY), LogUnavailable)
        append(producer, kafka_log.topic, *numbered(1, start=number))
    assert values(read(kafka_log.consumer(), 3)) == [b"0", b"1", b"2"]


def test_a_record_no_broker_could_take_fails_alone(kafka_log: KafkaLog) -> None:
    producer = kafka_log.producer()
    append(producer, kafka_log.topic, *numbered(1))
    refused = producer.append(kafka_log.topic, [Record("booking-1", b"with it"), Record("booking-1", bytes(30 * 1024 * 1024))])
    assert isinstance(refused.exception(_QUICKLY), LogUnavailable)
    append(producer, kafka_log.topic, *numbered(1, start=1))


def test_records_by_other_hands_are_readable(kafka_log: KafkaLog) -> None:
    append(kafka_log.producer(), kafka_log.topic, Record("booking-1", b"ours"))
    foreign = KafkaProducer(bootstrap_servers=kafka_log.servers)
    for key, value, headers in (
        (b"tombstone", None, []),
        (None, b"without a key", []),
        (b"\xff\xfe", b"key not UTF-8", []),
        (b"header", b"not UTF-8", [("name", b"\xff")]),
    ):
        foreign.send(kafka_log.topic, key=key, value=value, headers=headers)
    foreign.close()
    found = {stored.record.key: stored.record for stored in read(kafka_log.consumer(), 5)}
    assert found["tombstone"].value == b""
    assert found[""].value == b"without a key"
    assert found["\ufffd\ufffd"].value == b"key not UTF-8"
    assert found["header"].headers == {"name": "\ufffd"}


def secured(broker: Broker, password: str) -> KafkaSettings:
    return KafkaSettings(
        security_protocol="SASL_SSL",
        ssl_cafile=str(broker.cafile),
        sasl_mechanism="PLAIN",
        sasl_username=broker.user,
        sasl_password=SecretStr(password),
        partitions=3,
    )


def test_tls_and_sasl_settings_reach_the_brokers(broker: Broker) -> None:
    log = KafkaLog(broker.secure_servers)
    log.settings = secured(broker, broker.password)
    with closing(log):
        append(log.producer(), log.topic, *numbered(2))
        consumer = log.consumer()
        consumer.commit(read(consumer, 2)[:1])
        assert sum(entry.lag for entry in log.backlog()) == 1


def test_a_wrong_password_is_told_without_the_password(broker: Broker) -> None:
    log = KafkaLog(broker.secure_servers)
    log.settings = secured(broker, "wrong-password")
    with closing(log):
        error = log.producer().append(log.topic, numbered(1)).exception(_QUICKLY)
        assert isinstance(error, LogUnavailable)
        assert "SASL" in str(error)
        assert "wrong-password" not in str(error)


def test_a_broker_whose_certificate_is_not_trusted_is_refused(broker: Broker) -> None:
    log = KafkaLog(broker.secure_servers)
    log.settings = secured(broker, broker.password).model_copy(update={"ssl_cafile": None})
    with closing(log):
        assert isinstance(log.producer().append(log.topic, numbered(1)).exception(_QUICKLY), LogUnavailable)


def test_two_consumers_share_the_partitions_and_handle_every_record(kafka_log: KafkaLog) -> None:
    producer, first = kafka_log.producer(), kafka_log.consumer()
    keys = [f"booking-{number}" for number in range(40)]
    append(producer, kafka_log.topic, *(Record(key, b"before") for key in keys))
    before = read(first, 40)
    second = kafka_log.consumer()
    by_second = poll_until_shared(first, second)
    kept = [stored for stored in before if stored.partition in assigned(first)]
    moved = [stored for stored in before if stored.partition in assigned(second)]
    assert kept
    assert moved
    assert len(kept) + len(moved) == 40

    with pytest.raises(CommitFailed, match=kafka_log.group):
        first.commit(before)
    first.commit(kept)
    first.rewind()
    append(producer, kafka_log.topic, *(Record(key, b"after") for key in keys))
    by_first: list[StoredRecord] = []
    deadline = time.monotonic() + PATIENCE
    while len(by_first) + len(by_second) < 40 + len(moved):
        assert time.monotonic() < deadline
        by_first += first.poll(100, 0.1)
        by_second += second.poll(100, 0.1)
    assert {stored.record.value for stored in by_first} == {b"after"}
    assert sorted(stored.record.key for stored in by_second if stored.record.value == b"before") == sorted(
        stored.record.key for stored in moved
    )
    assert {stored.partition for stored in by_first} <= assigned(first)
    first.commit(by_first)
    second.commit(by_second)
    assert sum(entry.lag for entry in kafka_log.backlog()) == 0


def test_a_consumer_that_leaves_hands_what_it_did_not_commit_to_the_other(kafka_log: KafkaLog) -> None:
    producer, first = kafka_log.producer(), kafka_log.consumer()
    append(producer, kafka_log.topic, *(Record(f"booking-{number}", b"") for number in range(40)))
    first.commit(read(first, 40))
    second = kafka_log.consumer()
    poll_until_shared(first, second)
    generation = first.generation()
    append(producer, kafka_log.topic, *(Record(f"booking-{number}", b"again") for number in range(40)))
    by_second: list[StoredRecord] = []
    while not by_second:
        by_second = second.poll(100, 0.5)
    kafka_log.leave(second)
    again = read(first, 40)
    assert {stored.record.value for stored in again} == {b"again"}
    assert len({stored.record.key for stored in again}) == 40
    assert first.generation() > generation


def test_a_consumer_that_was_away_too_long_cannot_commit(kafka_log: KafkaLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(consumer_module._OPTIONS, "max_poll_interval_ms", 1_000)
    monkeypatch.setitem(consumer_module._OPTIONS, "session_timeout_ms", 6_000)
    append(kafka_log.producer(), kafka_log.topic, *numbered(3))
    consumer = kafka_log.consumer()
    found, generation = read(consumer, 3), consumer.generation()
    deadline = time.monotonic() + PATIENCE
    while is_member(consumer):
        assert time.monotonic() < deadline
    with pytest.raises(CommitFailed):
        consumer.commit(found)
    assert values(read(consumer, 3)) == [b"0", b"1", b"2"]
    assert consumer.generation() > generation


def poll_until_shared(first: Consumer, second: Consumer) -> list[StoredRecord]:
    """What the second got meanwhile; for the first there is nothing new to read."""
    generation, by_second = first.generation(), []
    deadline = time.monotonic() + PATIENCE
    while first.generation() == generation or not assigned(second):
        assert time.monotonic() < deadline
        assert first.poll(100, 0.1) == []
        by_second += second.poll(100, 0.1)
    return by_second


def assigned(consumer: Consumer) -> set[Partition]:
    assert isinstance(consumer, KafkaLogConsumer)
    return {Partition(*each) for each in consumer._consumer.assignment()}


def is_member(consumer: Consumer) -> bool:
    assert isinstance(consumer, KafkaLogConsumer)
    return bool(consumer._consumer.group_metadata().member_id)
