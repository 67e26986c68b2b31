"""Notices what Kafka deleted before its group had read it: Kafka itself goes on with what is left, and the lag does not show it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka import TopicPartition

from ingest.log import Partition
from ingest.log.kafka.comparer import offsets_of

Tell = Callable[[Partition, int], None]
Fetched = Mapping[TopicPartition, Sequence[Any]]

_PATIENCE_MILLISECONDS = 10_000


class DeletedUnread:
    """Knows of each partition that a consumer has which offset it is to get next. Everything raises KafkaError."""

    def __init__(self, consumer: Any, commit: Callable[[TopicPartition, int], None], tell: Tell) -> None:
        """`tell` gets a partition and how many of its records are gone; `commit` commits an offset."""
        self._consumer, self._commit, self._tell = consumer, commit, tell
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
                self._tell(Partition(partition.topic, partition.partition), gone)
                self._next[partition] = first
                self._commit(partition, first)  # or the next consumer would tell it again
