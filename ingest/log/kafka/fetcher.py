"""Fetching of records by librdkafka, which receives, checks and unpacks them outside of Python.

A record takes a fifth of the processor time that kafka-python needs. The group stays with kafka-python, whose
heartbeats do not depend on the wall clock: librdkafka waits by that one, and where it is set back, it waits
longer by as much. https://github.com/confluentinc/librdkafka/issues/2145
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field
from typing import cast

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as Position
from kafka import TopicPartition

from ingest.log import MAX_POLL_BYTES, Partition, StoredRecord
from ingest.log.kafka.cluster import CONNECT_SECONDS, Cluster
from ingest.log.kafka.comparer import build_record
from ingest.log.kafka_settings import LARGEST_RECORD
from ingest.threads import run_in_thread

log = structlog.get_logger()

_KIB = 1024
_CLOSE_SECONDS = 10.0
_SET_BACK_SECONDS = 0.5  # by which a clock that is slewed never goes back at once
_REPORT_SECONDS = 60.0
# What is fetched is unpacked at once. The queue limits what is kept, and a fetch what is added to a queue
# that has room: a batch of the log's own format may have 255 times as many bytes when it is unpacked.
_FETCH_BYTES = 128 * _KIB
_OPTIONS: dict[str, str | int | bool] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",  # waits for offsets of a transaction that is about to end
    "check.crcs": True,
    "fetch.max.bytes": _FETCH_BYTES,  # a larger record comes all the same
    "fetch.message.max.bytes": _FETCH_BYTES,
    "message.max.bytes": _FETCH_BYTES,  # of what is produced, but fetch.max.bytes may not be less
    "queued.max.messages.kbytes": MAX_POLL_BYTES // _KIB,
    "fetch.queue.backoff.ms": 20,
    "socket.connection.setup.timeout.ms": int(CONNECT_SECONDS * 1000),
    "socket.timeout.ms": 10_000,
    "reconnect.backoff.max.ms": 1_000,
    "topic.metadata.refresh.interval.ms": 60_000,
    "socket.nagle.disable": True,
    "log_level": 0,  # what goes wrong is in the error of a message, or the client calls back
}


@dataclass(slots=True)
class Run:
    """Records of one partition that follow each other and have one leader epoch."""

    partition: Partition
    epoch: int | None
    records: list[StoredRecord] = field(default_factory=list)


Fetched = Mapping[TopicPartition, Run]


class Fetcher:
    """Fetches the records of partitions, each from some offset on, by a client that belongs to no group.

    Whatever goes wrong with the client, a new one takes its place, and continues after the records that were
    returned.
    """

    def __init__(self, cluster: Cluster, group: str) -> None:
        """`group` is the one for which it reads; librdkafka wants to know it."""
        self._cluster, self._group = cluster, group
        self._client: Consumer | None = None
        self._next: dict[TopicPartition, int] = {}
        self._is_assigned = False  # whether the client has these positions
        self._messages: deque[Message] = deque()  # taken from the client, and not returned yet
        self._largest = LARGEST_RECORD  # bytes of the largest message that was taken last
        self._clock = _clock_ahead()
        self._report_due = 0.0

    def assign(self, partitions: Iterable[TopicPartition], offsets: Mapping[TopicPartition, int]) -> None:
        """Fetch these partitions only, from these offsets on, or where there is none from where it was."""
        self._next = {
            partition: offsets[partition] if partition in offsets else self._next[partition]
            for partition in partitions
        }
        self._is_assigned = False

    def seek(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Continue at these offsets, in those of these partitions that are assigned."""
        changed = {
            partition: offset
            for partition, offset in offsets.items()
            if self._next.get(partition, offset) != offset
        }
        if changed:
            self._next |= changed
            self._is_assigned = False

    def renew(self) -> None:
        """Fetch with a new client, which knows nothing of the log as it was before.

        A client that knows a topic's leader epochs waits for ever for higher ones when the topic is made
        anew, as other clients did: https://issues.apache.org/jira/browse/KAFKA-12257
        """
        self._drop()

    def fetch(self, limit: int, max_bytes: int) -> Fetched:
        """Return the next records that have come by now, up to `limit`, by partition.

        Together they have at most `max_bytes` and one record more. Raises LogUnavailable.
        """
        try:
            return self._take(self._connected(), limit, max_bytes)
        except KafkaException as failure:
            self._drop()
            raise self._cluster.unavailable_to_librdkafka(failure.args[0]) from failure
        except BaseException:  # such as MemoryError: what was taken is not returned, and is fetched again
            self._is_assigned = False
            raise

    def close(self) -> None:
        """Close the client, within some seconds."""
        self._drop()

    def _connected(self) -> Consumer:
        """Return a client that fetches the next records. Raises KafkaException."""
        clock_before, self._clock = self._clock, _clock_ahead()
        if self._clock < clock_before - _SET_BACK_SECONDS:
            self._drop()
        if self._client is None:
            options = self._cluster.librdkafka_options() | _OPTIONS | {"group.id": self._group}
            self._client = Consumer(options, error_cb=self._report)
        if not self._is_assigned:
            self._messages.clear()
            self._client.assign(
                [
                    Position(partition.topic, partition.partition, offset)
                    for partition, offset in self._next.items()
                ]
            )
            self._is_assigned = True
        return self._client

    def _take(self, client: Consumer, limit: int, max_bytes: int) -> Fetched:
        """Take records from the client. Raises KafkaException."""
        runs: dict[TopicPartition, Run] = {}
        count = size = 0
        while count < limit and size < max_bytes:
            if not self._messages:
                # What is taken and does not fit would be kept beside what the client fetches in its place.
                room = max(1, (max_bytes - size) // self._largest)
                self._messages.extend(client.consume(min(limit - count, room), 0))
                self._largest = max(1, *map(len, self._messages)) if self._messages else self._largest
            if not self._messages:
                break
            message = self._messages[0]
            if (error := message.error()) is not None:
                if runs:
                    break
                raise KafkaException(error)
            partition, epoch = TopicPartition(message.topic(), message.partition()), message.leader_epoch()
            offset, run = cast("int", message.offset()), runs.get(partition)
            if run is None:
                run = runs[partition] = Run(Partition(*partition), epoch)
            elif epoch != run.epoch or offset <= run.records[-1].offset:
                break  # the log may have been cut, for which the records before are compared first
            self._messages.popleft()
            headers = cast("Sequence[tuple[str, bytes | None]]", message.headers() or ())
            record = build_record(message.key(), message.value(), headers)
            seconds = message.timestamp()[1] / 1000
            run.records.append(StoredRecord(record, run.partition, offset, seconds))
            count, size = count + 1, size + record.size
        self._next |= {partition: run.records[-1].offset + 1 for partition, run in runs.items()}
        return runs

    def _drop(self) -> None:
        """Close the client, within some seconds; the next one begins where this one was."""
        client, self._client, self._is_assigned = self._client, None, False
        if client is not None:
            wait([run_in_thread(client.close, "log-fetcher-before")], _CLOSE_SECONDS)

    def _report(self, error: KafkaError) -> None:
        """Log why the client cannot connect, at most once a minute. It tries again by itself.

        That a connection was closed, or refused while a broker starts, is no news.
        """
        if error.code() == KafkaError._TRANSPORT or time.monotonic() < self._report_due:  # noqa: SLF001
            return
        self._report_due = time.monotonic() + _REPORT_SECONDS
        log.warning("log.cannot_fetch", why=error.str())


def _clock_ahead() -> float:
    """Return by how many seconds the wall clock is ahead of one that never jumps."""
    return time.time() - time.monotonic()
