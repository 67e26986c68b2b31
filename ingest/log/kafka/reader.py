"""A reader of the log on Kafka, from some instant on and without a group."""

import heapq
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any

from kafka import KafkaConsumer, OffsetSpec, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.protocol.consumer import IsolationLevel

from ingest.log import Partition, Start, StoredRecord
from ingest.log.kafka.cluster import Cluster
from ingest.log.kafka.comparer import stored_record
from ingest.log.kafka.consumer import partitions_of
from ingest.log.kafka_settings import KafkaSettings

_FETCH_RECORDS = 1000  # of each partition
_FETCH_BYTES = 1024 * 1024
_POLL_RECORDS = 8  # a fetch of max_partition_fetch_bytes may unpack to gigabytes
_POLL_MILLISECONDS = 1_000
_FETCH_SECONDS = 30.0
_OPTIONS = {
    "group_id": None,
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",  # records deleted meanwhile are left out
    "isolation_level": "read_committed",
    "max_partition_fetch_bytes": 1024 * 1024,
    "bootstrap_timeout_ms": 10_000,
    "request_timeout_ms": 10_000,
    "metrics_enabled": False,
}


class KafkaLogReader:
    """Fetches the partition that is next by time, so that memory holds at most one fetch of each."""

    def __init__(
        self, servers: list[str], settings: KafkaSettings, topics: Sequence[str], since: Start
    ) -> None:
        """Begin with the first record of each partition at or after `since`, or with the first of all.

        Topics that do not exist are left out. Raises LogUnavailable.
        """
        self._cluster = Cluster(servers, settings)
        with self._cluster.translated_errors():
            self._find_spans(topics, since)
            self._consumer = self._cluster.open(KafkaConsumer, **_OPTIONS)

    def total(self) -> int:
        return sum(map(len, self._spans.values()))

    def begins_at(self) -> datetime | None:
        return datetime.fromtimestamp(min(self._oldest) / 1000, UTC) if self._oldest else None

    def first_offset(self, partition: Partition) -> int:
        return int(max(0, self._firsts.get(partition, 0)))

    def records(self) -> Iterator[StoredRecord]:
        return heapq.merge(
            *(self._records_of(partition, span) for partition, span in self._spans.items()),
            key=lambda stored: stored.timestamp,
        )

    def close(self) -> None:
        with suppress(KafkaError):
            self._consumer.close(autocommit=False)

    def _find_spans(self, topics: Sequence[str], since: Start) -> None:
        """Set the offsets to read.

        For a time Kafka returns the offset and time of the first record that is not older, or -1.
        """
        time = int(since.timestamp() * 1000) if isinstance(since, datetime) else 0
        offsets = since if isinstance(since, Mapping) else {}
        with closing(self._cluster.admin()) as admin:
            partitions = partitions_of(admin, topics)
            first, start, end = (
                admin.list_partition_offsets(dict.fromkeys(partitions, spec), IsolationLevel.READ_COMMITTED)
                if partitions
                else {}
                for spec in (0, time, OffsetSpec.LATEST)
            )
        self._firsts = {Partition(*partition): offset.offset for partition, offset in first.items()}
        self._oldest = [offset.timestamp for offset in first.values() if offset.offset >= 0]
        self._spans = {
            partition: range(
                max(start[partition].offset, offsets.get(partition.partition, 0)), end[partition].offset
            )
            for partition in partitions
            if start[partition].offset >= 0
        }

    def _records_of(self, partition: TopicPartition, span: range) -> Iterator[StoredRecord]:
        offset = span.start
        while offset < span.stop:
            messages, offset = self._fetch(partition, offset)
            for message in messages:
                if message.offset < span.stop:
                    yield stored_record(message)

    def _fetch(self, partition: TopicPartition, offset: int) -> tuple[list[Any], int]:
        """Return the next messages and the offset after them.

        Markers of transactions are offsets without a message.
        """
        deadline = time.monotonic() + _FETCH_SECONDS
        with self._cluster.translated_errors():
            self._consumer.assign([partition])
            self._consumer.seek(partition, offset)
            while time.monotonic() < deadline:
                messages = self._unpack_fetch(partition)
                after = self._consumer.position(partition, timeout_ms=_POLL_MILLISECONDS)
                if after is not None and after > offset:
                    return messages, after
            raise KafkaTimeoutError(
                f"{partition.topic}/{partition.partition} gave nothing from offset {offset} on"
            )

    def _unpack_fetch(self, partition: TopicPartition) -> list[Any]:
        """Return the messages of the next fetch, up to a limit of bytes once they are unpacked."""
        messages: list[Any] = []
        size, timeout = 0, _POLL_MILLISECONDS
        while len(messages) < _FETCH_RECORDS and size < _FETCH_BYTES:
            polled = self._consumer.poll(timeout_ms=timeout, max_records=_POLL_RECORDS).get(partition)
            if not polled:
                break
            messages += polled
            size += sum(len(message.value or b"") for message in polled)
            timeout = 0
        return messages
