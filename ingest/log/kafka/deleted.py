"""Notices what Kafka deleted before its group had read it: Kafka itself goes on with what is left, and the lag does not show it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from kafka import TopicPartition

from ingest.log import Partition
from ingest.log.kafka.comparer import offsets_of
from ingest.telemetry import DELETED_UNREAD

log = structlog.get_logger()

OnDeleted = Callable[[Partition, int], None]
Fetched = Mapping[TopicPartition, Sequence[Any]]

_PATIENCE_MILLISECONDS = 10_000


def report_deleted(partition: Partition, records: int) -> None:
    """Count and log records that were deleted before they were loaded."""
    DELETED_UNREAD.labels(partition.topic, partition.number).inc(records)
    log.error(
        "log.deleted_unread",
        topic=partition.topic,
        partition=partition.number,
        records=records,
        why="Kafka's retention deleted them before they were loaded: reconcile as far back as the consumer was behind, and raise retention.ms",
    )


class DeletedUnread:
    """Knows of each partition that a consumer has which offset it is to get next. Everything raises KafkaError."""

    def __init__(
        self, consumer: Any, commit: Callable[[TopicPartition, int], None], on_deleted: OnDeleted
    ) -> None:
        """`on_deleted` gets a partition and the number of its records that are gone; `commit` commits an offset."""
        self._consumer, self._commit, self._on_deleted = consumer, commit, on_deleted
        self._generation = 0
        self._next: dict[TopicPartition, int] = {}

    def look(self, fetched: Fetched, generation: int) -> None:
        """To be called before anything of it is committed: afterwards nobody could tell any more."""
        if generation != self._generation:
            self._next = self._committed()
            self._compare_with_beginnings()
            self._generation = generation
        elif any(
            messages[0].offset > self._next.get(partition, 0) for partition, messages in fetched.items()
        ):
            self._compare_with_beginnings()
        self._next |= {partition: messages[-1].offset + 1 for partition, messages in fetched.items()}

    def rewound(self, to: Mapping[TopicPartition, int]) -> None:
        """These offsets are next."""
        self._next |= to

    def _committed(self) -> dict[TopicPartition, int]:
        """Where the group has been before."""
        found = {
            partition: self._consumer.committed(partition, timeout_ms=_PATIENCE_MILLISECONDS)
            for partition in self._consumer.assignment()
        }
        return {
            partition: offset for partition, offset in found.items() if offset is not None and offset >= 0
        }

    def _compare_with_beginnings(self) -> None:
        """All of them: of one that has no newer records no poll would give any sign. Transactions' markers make gaps too, elsewhere than at the beginning."""
        assigned = self._consumer.assignment()
        for partition, first in (
            offsets_of(self._consumer.beginning_offsets, assigned, _PATIENCE_MILLISECONDS) if assigned else {}
        ).items():
            gone = first - self._next.setdefault(partition, first)
            if gone > 0:
                self._on_deleted(Partition(partition.topic, partition.partition), gone)
                self._next[partition] = first
                self._commit(partition, first)  # or the next consumer would tell it again
