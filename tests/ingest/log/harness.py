"""Both logs as fixtures, with topics and groups unique to one test, and a log in memory."""

import sqlite3
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from ingest.errors import LogRefused
from ingest.log import Backlog, Consumer, Producer, Record, StoredRecord
from ingest.log.backend import KafkaLog, Log, SqliteLog
from ingest.log.kafka_settings import KafkaSettings
from tests.support.polling import Deadline
from tests.support.ports import free_port

PATIENCE = 60.0  # long, for a slow machine; a test that passes never waits for it
# How soon an append has an outcome, whatever happens; the receiver's limit is 4, this machine may be slow.
QUICKLY = 6.0


class LogFixture(ABC):
    """A log with a topic and a group that no other test has; what a test opens is closed at its end."""

    def __init__(self) -> None:
        name = uuid.uuid4().hex[:12]
        self.topic, self.other_topic, self.group = (
            f"bookings.{name}",
            f"bookings.{name}.other",
            f"group-{name}",
        )
        self.feed = f"bookings.{name}.changes"
        self._producers: list[Producer] = []
        self._consumers: list[Consumer] = []

    @abstractmethod
    def log(self, *topics: str) -> Log:
        """Return the log with these topics, or both."""

    @abstractmethod
    def unavailable_producer(self) -> Producer:
        """Open a producer of a log that cannot take anything."""

    def producer(self) -> Producer:
        # The other topic is for the producer to find out.
        self._producers.append(self.log(self.topic).producer())
        return self._producers[-1]

    def consumer(self) -> Consumer:
        self._consumers.append(self.log().consumer())
        return self._consumers[-1]

    def backlog(self) -> list[Backlog]:
        return self.log().backlog()

    def leave(self, consumer: Consumer) -> None:
        self._consumers.remove(consumer)
        consumer.close()

    def close(self) -> None:
        for producer in self._producers:
            producer.close()
        for consumer in self._consumers:
            consumer.close()


class SqliteFixture(LogFixture):
    """The embedded log in a file of its own."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def log(self, *topics: str) -> Log:
        consumed = topics or (self.topic, self.other_topic)
        return SqliteLog(self.path, consumed, self.group, timedelta(days=14), self.feed)

    def unavailable_producer(self) -> Producer:
        producer = self.producer()
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("DROP TABLE records")
        return producer


class KafkaFixture(LogFixture):
    """Topics on brokers that other tests use too."""

    def __init__(self, servers: list[str], partitions: int = 3) -> None:
        super().__init__()
        self.servers, self.settings = servers, KafkaSettings(partitions=partitions, replication_factor=1)

    def log(self, *topics: str) -> Log:
        consumed = topics or (self.topic, self.other_topic)
        return KafkaLog(self.servers, self.settings, consumed, self.group, self.feed)

    def unavailable_producer(self) -> Producer:
        unreachable = KafkaLog([f"127.0.0.1:{free_port()}"], self.settings, [self.topic], self.group)
        self._producers.append(unreachable.producer())
        return self._producers[-1]


def append(producer: Producer, topic: str, *records: Record) -> None:
    """Append records, and wait until they are durable."""
    producer.append(topic, records).result(PATIENCE)


def numbered(count: int, key: str = "booking-1", start: int = 0) -> list[Record]:
    """Return records of one key whose values are their numbers."""
    return [Record(key, str(number).encode()) for number in range(start, start + count)]


def read(consumer: Consumer, count: int) -> list[StoredRecord]:
    """Read so many next records, and no more."""
    records: list[StoredRecord] = []
    deadline = Deadline("the records can be read")
    while len(records) < count:
        deadline.check()
        records += consumer.poll(count - len(records), 1.0)
    return records


def values(records: Sequence[StoredRecord]) -> list[bytes]:
    """Return the values of records."""
    return [stored.record.value for stored in records]


class SmallLog:
    """A log whose records are in `taken`, by topic. An append with a record that is too large is refused."""

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self.taken: dict[str, list[Record]] = {}

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        future: Future[None] = Future()
        if any(size_of(record) > self.largest for record in records):
            future.set_exception(LogRefused("the record is too large"))
        else:
            self.taken.setdefault(topic, []).extend(records)
            future.set_result(None)
        return future

    def close(self) -> None:
        """Nothing to free."""


def size_of(record: Record) -> int:
    """Return the bytes of key, value and headers."""
    return (
        len(record.key)
        + len(record.value)
        + sum(len(name) + len(value) for name, value in record.headers.items())
    )
