"""The two logs as the tests see them: opened by name, closed at the end, everything unique to one test."""

import sqlite3
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from ingest.log import Backlog, Consumer, Producer, Record, StoredRecord
from ingest.log import sqlite as sqlite_log
from ingest.log.kafka import KafkaLogConsumer, KafkaLogProducer
from ingest.log.kafka import backlog as kafka_backlog
from ingest.log.kafka_settings import KafkaSettings
from ingest.log.sqlite import SqliteConsumer, SqliteProducer
from tests.kafka.broker import free_port

PATIENCE = 60.0  # long, for a slow machine; a test that passes never waits for it
QUICKLY = 6.0  # how soon an append has an outcome, whatever happens; the receiver's limit is 4, this machine may be slow


class Log(ABC):
    """One log with a topic and a group that no other test has."""

    def __init__(self) -> None:
        name = uuid.uuid4().hex[:12]
        self.topic, self.other_topic, self.group = (
            f"bookings.{name}",
            f"bookings.{name}.other",
            f"group-{name}",
        )
        self._producers: list[Producer] = []
        self._consumers: list[Consumer] = []

    def producer(self) -> Producer:
        self._producers.append(self._open_producer())
        return self._producers[-1]

    def consumer(self) -> Consumer:
        self._consumers.append(self._open_consumer())
        return self._consumers[-1]

    def leave(self, consumer: Consumer) -> None:
        self._consumers.remove(consumer)
        consumer.close()

    def close(self) -> None:
        for producer in self._producers:
            producer.close()
        for consumer in self._consumers:
            consumer.close()

    @abstractmethod
    def unavailable_producer(self) -> Producer:
        """Of a log that cannot take anything."""

    @abstractmethod
    def backlog(self) -> list[Backlog]:
        """As seen from outside the group."""

    @abstractmethod
    def _open_producer(self) -> Producer: ...

    @abstractmethod
    def _open_consumer(self) -> Consumer: ...


class SqliteLog(Log):
    """In a file of its own."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def unavailable_producer(self) -> Producer:
        producer = self.producer()
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("DROP TABLE records")
        return producer

    def backlog(self) -> list[Backlog]:
        return sqlite_log.backlog(self.path, self.group, [self.topic, self.other_topic])

    def _open_producer(self) -> Producer:
        return SqliteProducer(self.path)

    def _open_consumer(self) -> Consumer:
        return SqliteConsumer(self.path, self.group, [self.topic, self.other_topic], timedelta(days=14))


class KafkaLog(Log):
    """On brokers that other tests use too."""

    def __init__(self, servers: list[str], partitions: int = 3) -> None:
        super().__init__()
        self.servers, self.settings = servers, KafkaSettings(partitions=partitions, replication_factor=1)

    def unavailable_producer(self) -> Producer:
        producer = KafkaLogProducer([f"127.0.0.1:{free_port()}"], self.settings, [self.topic])
        self._producers.append(producer)
        return producer

    def backlog(self) -> list[Backlog]:
        return kafka_backlog(self.servers, self.settings, self.group, [self.topic, self.other_topic])

    def _open_producer(self) -> Producer:
        return KafkaLogProducer(
            self.servers, self.settings, [self.topic]
        )  # the other topic is for it to find out

    def _open_consumer(self) -> Consumer:
        return KafkaLogConsumer(self.servers, self.settings, self.group, [self.topic, self.other_topic])


def append(producer: Producer, topic: str, *records: Record) -> None:
    """Returns when they are durable."""
    producer.append(topic, records).result(PATIENCE)


def numbered(count: int, key: str = "booking-1", start: int = 0) -> list[Record]:
    """Records of one key whose values are their numbers."""
    return [Record(key, str(number).encode()) for number in range(start, start + count)]


def read(consumer: Consumer, count: int) -> list[StoredRecord]:
    """So many next records, and no more."""
    found: list[StoredRecord] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} records after {PATIENCE} s"
        found += consumer.poll(count - len(found), 1.0)
    return found


def values(records: Sequence[StoredRecord]) -> list[bytes]:
    """What they hold, in order."""
    return [stored.record.value for stored in records]
