"""Reads from Kafka from some instant on, for no group."""

import heapq
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any

from kafka import KafkaConsumer, OffsetSpec, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError

from ingest.log import Partition, StoredRecord
from ingest.log.kafka.cluster import Cluster
from ingest.log.kafka.comparer import stored_record
from ingest.log.kafka.consumer import partitions_of
from ingest.log.kafka_settings import KafkaSettings

_AT_A_TIME = 1000  # of each partition
_BYTES_AT_A_TIME = 1024 * 1024
_UNPACKED_AT_ONCE = 8  # a fetch of max_partition_fetch_bytes may unpack to gigabytes
_POLL_MILLISECONDS = 1_000
_PATIENCE_SECONDS = 30.0
_OPTIONS = {
    "group_id": None,
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",  # what was deleted before its turn is left out
    "max_partition_fetch_bytes": 1024 * 1024,
    "bootstrap_timeout_ms": 10_000,
    "request_timeout_ms": 10_000,
    "metrics_enabled": False,
}


class KafkaLogReader:
    """One partition is fetched at a time, whichever is next by time, so that memory holds no more than a fetch of each."""

    def __init__(
        self, servers: list[str], settings: KafkaSettings, topics: Sequence[str], since: datetime | None
    ) -> None:
        """From the first record of each partition that was appended then or later; without `since`, from the first there is.

        Topics that are not there are left out. Raises LogUnavailable.
        """
        self._cluster = Cluster(servers, settings)
        with self._cluster.translated_errors():
            self._look(topics, int(since.timestamp() * 1000) if since else 0)
            self._consumer = self._cluster.open(KafkaConsumer, **_OPTIONS)

    def total(self) -> int:
        return sum(map(len, self._spans.values()))

    def begins(self) -> datetime | None:
        return _instant(min(self._oldest)) if self._oldest else None

    def first(self, partition: Partition) -> int:
        return int(max(0, self._firsts.get(partition, 0)))

    def records(self) -> Iterator[StoredRecord]:
        return heapq.merge(
            *(self._of(partition, span) for partition, span in self._spans.items()),
            key=lambda stored: stored.timestamp,
        )

    def close(self) -> None:
        with suppress(KafkaError):
            self._consumer.close(autocommit=False)

    def _look(self, topics: Sequence[str], since: int) -> None:
        """Kafka answers a time with the first record that is not older, and the time of that one; -1 where there is none."""
        with closing(self._cluster.admin()) as admin:
            partitions = partitions_of(admin, topics)
            first, start, end = (
                admin.list_partition_offsets(dict.fromkeys(partitions, spec)) if partitions else {}
                for spec in (0, since, OffsetSpec.LATEST)
            )
        self._firsts = {Partition(*each): found.offset for each, found in first.items()}
        self._oldest = [found.timestamp for found in first.values() if found.offset >= 0]
        self._spans = {
            each: range(start[each].offset, end[each].offset)
            for each in partitions
            if start[each].offset >= 0
        }

    def _of(self, partition: TopicPartition, span: range) -> Iterator[StoredRecord]:
        offset = span.start
        while offset < span.stop:
            messages, offset = self._fetch(partition, offset)
            for message in messages:
                if message.offset < span.stop:
                    yield stored_record(message)

    def _fetch(self, partition: TopicPartition, offset: int) -> tuple[list[Any], int]:
        """The next records, and the offset after them; markers of transactions are offsets without a record."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        with self._cluster.translated_errors():
            self._consumer.assign([partition])
            self._consumer.seek(partition, offset)
            while time.monotonic() < deadline:
                messages = self._unpacked(partition)
                after = self._consumer.position(partition, timeout_ms=_POLL_MILLISECONDS)
                if after is not None and after > offset:
                    return messages, after
            raise KafkaTimeoutError(
                f"{partition.topic}/{partition.partition} gave nothing from offset {offset} on"
            )

    def _unpacked(self, partition: TopicPartition) -> list[Any]:
        """What the next fetch has, as far as it is not too large once it is unpacked."""
        messages: list[Any] = []
        size, patience = 0, _POLL_MILLISECONDS
        while len(messages) < _AT_A_TIME and size < _BYTES_AT_A_TIME:
            more = self._consumer.poll(timeout_ms=patience, max_records=_UNPACKED_AT_ONCE).get(partition)
            if not more:
                break
            messages += more
            size += sum(len(message.value or b"") for message in more)
            patience = 0
        return messages


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
