"""Detection of records that Kafka deleted before the group had read them.

Kafka goes on with the rest, and the lag does not show it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import structlog
from kafka import TopicPartition

from ingest.log import Partition, PositionChange
from ingest.log.kafka.comparer import offsets_of
from ingest.log.kafka.fetcher import Fetched
from ingest.telemetry import DELETED_UNREAD

log = structlog.get_logger()

OnDeleted = Callable[[PositionChange], None]

_TIMEOUT_MILLISECONDS = 10_000


def report_deleted(change: PositionChange) -> None:
    """Count and log records that were deleted before they were loaded."""
    partition, records = change.partition, change.now - change.before
    DELETED_UNREAD.labels(partition.topic, partition.number).inc(records)
    log.error(
        "log.deleted_unread",
        topic=partition.topic,
        partition=partition.number,
        records=records,
        why="Kafka's retention deleted them before they were loaded: reconciliation looks for what they told"
        " of; raise retention.ms",
    )


class DeletedUnread:
    """Knows for each partition of a consumer which offset comes next. Its methods raise KafkaError."""

    def __init__(
        self, consumer: Any, commit: Callable[[TopicPartition, int], None], on_deleted: OnDeleted
    ) -> None:
        """Commit offsets with `commit`; call `on_deleted` with the offsets of deleted records."""
        self._consumer, self._commit, self._on_deleted = consumer, commit, on_deleted
        self._generation = 0
        self._next: dict[TopicPartition, int] = {}

    def check(self, fetched: Fetched, generation: int) -> None:
        """Report what was deleted before the records fetched.

        Call it before these are committed: then nobody could tell any more.
        """
        if generation != self._generation:
            self._next = self._committed_offsets()
            self._compare_with_beginnings()
            self._generation = generation
        elif any(run.records[0].offset > self._next.get(partition, 0) for partition, run in fetched.items()):
            self._compare_with_beginnings()
        self._next |= {partition: run.records[-1].offset + 1 for partition, run in fetched.items()}

    def rewind(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Expect these offsets next."""
        self._next |= offsets

    def _committed_offsets(self) -> dict[TopicPartition, int]:
        offsets = {
            partition: self._consumer.committed(partition, timeout_ms=_TIMEOUT_MILLISECONDS)
            for partition in self._consumer.assignment()
        }
        return {
            partition: offset for partition, offset in offsets.items() if offset is not None and offset >= 0
        }

    def _compare_with_beginnings(self) -> None:
        """Compare the next offset of every partition with the beginning of its log.

        That covers partitions without newer records, of which no poll would give a sign. A gap elsewhere is
        the marker of a transaction.
        """
        assigned = self._consumer.assignment()
        if not assigned:
            return
        beginnings = offsets_of(self._consumer.beginning_offsets, assigned, _TIMEOUT_MILLISECONDS)
        for partition, first in beginnings.items():
            expected = self._next.setdefault(partition, first)
            if first > expected:
                self._on_deleted(PositionChange(Partition(*partition), expected, first))
                self._next[partition] = first
                self._commit(partition, first)  # or the next consumer would report it again
