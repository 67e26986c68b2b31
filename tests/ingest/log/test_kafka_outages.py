"""Brokers that are slow, frozen or killed, or close connections.

Appends end in time, and nothing acknowledged is lost.
"""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest

from ingest.errors import LogUnavailable
from ingest.log import Producer, Record
from ingest.log.kafka import KafkaLogConsumer, KafkaLogProducer, backlog
from ingest.log.kafka_settings import KafkaSettings
from tests.ingest.log.harness import QUICKLY, KafkaFixture, append, numbered, read, values
from tests.kafka.broker import Broker, fetch, running_broker
from tests.support.polling import PATIENCE, Deadline, wait_for
from tests.support.ports import free_port

pytestmark = pytest.mark.kafka


def append_until_it_works(producer: Producer, log: KafkaFixture, value: bytes) -> None:
    """Each attempt has an outcome in time."""
    deadline = Deadline("the append works")
    while (error := producer.append(log.topic, [Record("booking-1", value)]).exception(QUICKLY)) is not None:
        assert isinstance(error, LogUnavailable)
        deadline.check()


class Traffic:
    """Appends a record every few milliseconds, and knows the outcome of each."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self.acknowledged: list[bytes] = []
        self.failed: list[bytes] = []
        self.slowest = 0.0
        self._producer, self._topic, self._stopped = producer, topic, threading.Event()
        self._futures: list[Future[None]] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait_for(self, outcome: list[bytes], polled: int) -> None:
        enough = len(outcome) + polled
        wait_for(lambda: len(outcome) >= enough, f"{polled} more records have this outcome")

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
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), thread


def test_a_producer_starts_before_its_broker(broker: Broker) -> None:
    log = KafkaFixture(broker.servers)
    broker.kill()
    with closing(KafkaLogProducer(broker.servers, log.settings, [log.topic])) as producer:
        started = time.monotonic()
        failed = producer.append(log.topic, [Record("booking-1", b"too early")])
        assert isinstance(failed.exception(QUICKLY), LogUnavailable)
        assert time.monotonic() - started < QUICKLY
        broker.start()
        append_until_it_works(producer, log, b"in time")
    with closing(log):
        assert values(read(log.consumer(), 1)) == [b"in time"]


def test_append_returns_at_once_while_there_is_no_broker() -> None:
    with closing(
        KafkaLogProducer([f"127.0.0.1:{free_port()}"], KafkaSettings(), ["bookings.calendly"])
    ) as producer:
        futures, longest = [], 0.0
        for _ in range(1000):
            started = time.monotonic()
            futures.append(producer.append("bookings.calendly", [Record("booking-1", b"")]))
            longest = max(longest, time.monotonic() - started)
        assert longest < 1
        assert {type(future.exception(QUICKLY)) for future in futures} == {LogUnavailable}


def test_an_append_for_which_connecting_took_too_long_leaves_the_connection_to_the_next(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, clients = KafkaFixture(broker.servers), list[confluent_kafka.Producer]()

    def connect_slowly(*options: Any, **callbacks: Any) -> confluent_kafka.Producer:
        time.sleep(3.0)
        clients.append(confluent_kafka.Producer(*options, **callbacks))
        return clients[-1]

    monkeypatch.setattr("ingest.log.kafka.producer.Producer", connect_slowly)
    monkeypatch.setattr("ingest.log.kafka.producer._DELIVERY_SECONDS", 2.5)
    with closing(KafkaLogProducer(broker.servers, log.settings, [log.topic])) as producer:
        assert isinstance(producer.append(log.topic, numbered(1)).exception(PATIENCE), LogUnavailable)
        append_until_it_works(producer, log, b"second")
    assert len(clients) == 1


def test_an_outage_leaves_no_threads_behind() -> None:
    with closing(
        KafkaLogProducer([f"127.0.0.1:{free_port()}"], KafkaSettings(), ["bookings.calendly"])
    ) as producer:
        producer.append("bookings.calendly", [Record("booking-1", b"")]).exception(QUICKLY)
        before = set(threading.enumerate())
        for _ in range(5):
            producer.append("bookings.calendly", [Record("booking-1", b"")]).exception(QUICKLY)
        assert set(threading.enumerate()) == before


def test_a_broker_that_accepts_and_does_not_answer_is_no_broker(broker: Broker) -> None:
    broker.freeze()
    before = set(threading.enumerate())
    with closing(KafkaLogProducer(broker.servers, KafkaSettings(), ["bookings.calendly"])) as producer:
        started = time.monotonic()
        futures = [producer.append("bookings.calendly", [Record("booking-1", b"")]) for _ in range(20)]
        assert {type(future.exception(QUICKLY)) for future in futures} == {LogUnavailable}
        assert time.monotonic() - started < QUICKLY
    wait_until_gone(set(threading.enumerate()) - before)


def test_a_broker_frozen_while_appending_fails_appends_in_time_and_loses_none(broker: Broker) -> None:
    log = KafkaFixture(broker.servers)
    with closing(log), closing(KafkaLogProducer(broker.servers, log.settings, [log.topic])) as producer:
        traffic = Traffic(producer, log.topic)
        traffic.wait_for(traffic.acknowledged, 50)
        broker.freeze()
        traffic.wait_for(traffic.failed, 200)
        broker.thaw()
        traffic.wait_for(traffic.acknowledged, 50)
        traffic.stop()
        assert traffic.slowest < QUICKLY
        written = sum(entry.next for entry in log.backlog())
        counts = Counter(values(read(log.consumer(), written)))
    assert not [value for value in traffic.acknowledged if counts[value] == 0]
    assert not [value for value in traffic.acknowledged if counts[value] > 1]


def test_a_broker_killed_while_appending_loses_nothing_that_was_acknowledged(broker: Broker) -> None:
    log = KafkaFixture(broker.servers)
    with closing(log), closing(KafkaLogProducer(broker.servers, log.settings, [log.topic])) as producer:
        traffic = Traffic(producer, log.topic)
        for _ in range(2):
            traffic.wait_for(traffic.acknowledged, 50)
            broker.kill()
            traffic.wait_for(traffic.failed, 2)
            broker.start()
        traffic.wait_for(traffic.acknowledged, 50)
        traffic.stop()
        assert traffic.slowest < QUICKLY
        written = sum(entry.next for entry in log.backlog())
        counts = Counter(values(read(log.consumer(), written)))
    assert not [value for value in traffic.acknowledged if counts[value] != 1]


def test_a_broker_that_lost_everything_gets_its_topics_again(broker: Broker) -> None:
    log = KafkaFixture(broker.servers)
    with closing(KafkaLogProducer(broker.servers, log.settings, [log.topic])) as producer:
        append(producer, log.topic, Record("booking-1", b"lost"))
        broker.kill()
        with running_broker(broker.port), closing(log):
            append_until_it_works(producer, log, b"after")
            assert values(read(log.consumer(), 1)) == [b"after"]


def test_close_does_not_hang_while_the_broker_is_frozen(broker: Broker) -> None:
    log, before = KafkaFixture(broker.servers), set(threading.enumerate())
    producer, consumer = log.producer(), log.consumer()
    append(producer, log.topic, *numbered(3))
    read(consumer, 3)
    broker.freeze()
    traffic = Traffic(producer, log.topic)
    traffic.wait_for(traffic.failed, 100)
    stuck = producer.append(log.topic, numbered(1))
    started = time.monotonic()
    producer.close()
    assert isinstance(stuck.exception(QUICKLY), LogUnavailable)
    consumer.close()
    assert time.monotonic() - started < 30
    traffic.stop()
    assert traffic.slowest < QUICKLY
    wait_until_gone(set(threading.enumerate()) - before)


def test_a_consumer_reads_on_after_its_broker_was_away(broker: Broker) -> None:
    log = KafkaFixture(broker.servers)
    with closing(log):
        producer, consumer = log.producer(), log.consumer()
        append(producer, log.topic, *numbered(3))
        consumer.commit(read(consumer, 3))
        broker.kill()
        with suppress(LogUnavailable):  # it is told only if the coordinator is noticed to be away by then
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
    log = KafkaFixture(broker.servers)
    with closing(log):
        consumer = log.consumer()
        append(log.producer(), log.topic, *numbered(3))
        records = read(consumer, 3)
        broker.kill()
        with pytest.raises(LogUnavailable, match=broker.servers[0]):
            consumer.commit(records)
        consumer.rewind()
        broker.start()
        assert values(read(consumer, 3)) == [b"0", b"1", b"2"]


ESTABLISHED = "01"


@pytest.fixture
def forgetful(kafka_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:  # noqa: ARG001  it skips
    """Run a broker that closes idle connections after a second instead of ten minutes."""
    broker = Broker(fetch(), tmp_path_factory.mktemp("kafka"), overrides="connections.max.idle.ms=1000\n")
    broker.start()
    yield broker
    broker.stop()


def connections(broker: Broker) -> set[str]:
    """Our ends of those to it."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {line[1] for line in lines if line[2].endswith(f":{broker.port:04X}") and line[3] == ESTABLISHED}


def test_a_lone_record_is_taken_and_read_after_idle_connections_were_closed(forgetful: Broker) -> None:
    with closing(KafkaFixture(forgetful.servers)) as log:
        producer, consumer = log.producer(), log.consumer()
        for number in range(3):
            append(producer, log.topic, *numbered(1, start=number))
            stored = read(consumer, 1)
            assert values(stored) == [str(number).encode()]
            consumer.commit(stored)
            before, deadline = connections(forgetful), Deadline("the broker closes a connection")
            # As sets: another may have taken the place of one that was closed.
            while connections(forgetful) >= before:
                deadline.check()
                assert consumer.poll(1, 0.1) == []
