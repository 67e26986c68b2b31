"""A consumer of the log on Kafka, and the position of a group."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from kafka import (
    ConsumerRebalanceListener,
    KafkaConsumer,
    OffsetAndMetadata,
    OffsetSpec,
    TopicPartition,
)
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import KafkaError, KafkaTimeoutError, RetriableError

from ingest.errors import CommitFailed, LogUnavailable
from ingest.log import MAX_POLL_BYTES, Backlog, Partition, PositionChange, Record, StoredRecord
from ingest.log.bookmarks import Bookmark, Bookmarks
from ingest.log.kafka.cluster import Cluster
from ingest.log.kafka.deleted import DeletedUnread, OnDeleted, report_deleted
from ingest.log.kafka.fetcher import Fetched, Fetcher
from ingest.log.kafka.history import History
from ingest.log.kafka.transactions import FeedTransactions
from ingest.log.kafka_settings import KafkaSettings

_COMMIT_MILLISECONDS = 10_000
_GROUP_READY_SECONDS = 5.0
_RETRY_SECONDS = 0.1
_TIMESTAMPS_SECONDS = 5.0
_POLL_MILLISECONDS = 500
_POSITION_MILLISECONDS = 10_000
_WAIT_SECONDS = 0.025  # how late a record may be noticed
_GROUP_SECONDS = 0.5  # how late it may be noticed that partitions move, or that the log changed
_TIMESTAMPS_OPTIONS = {
    "group_id": None,
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",
    "max_poll_records": 100,
    "bootstrap_timeout_ms": 10_000,
    "request_timeout_ms": 10_000,
    "metrics_enabled": False,
}

_OPTIONS = {
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",
    "isolation_level": "read_committed",  # waits for offsets of a transaction that is about to end
    "max_poll_interval_ms": 600_000,  # between two polls there is a load
    "session_timeout_ms": 10_000,  # how long the partitions of a killed consumer wait for another
    "heartbeat_interval_ms": 1_000,  # how soon the others notice that a consumer joined or left
    "bootstrap_timeout_ms": 10_000,
    "request_timeout_ms": 10_000,
    "metadata_max_age_ms": 60_000,
    "partition_assignment_strategy": [RoundRobinPartitionAssignor],
    "metrics_enabled": False,
}


class _Ownership(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """The partitions that are assigned, each with the generation in which it came.

    `is_settled` says that they are not about to move.
    `unread_from` has those that were polled since, with their first uncommitted offset: Kafka only checks
    that a commit comes from a member of the group, not that the partition is still assigned to it.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self.is_settled = False
        self.generation = 0
        self.assigned: Mapping[TopicPartition, int] = {}
        self.unread_from: dict[TopicPartition, int] = {}

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:  # noqa: ARG002 - all of them
        """Note that partitions may move. The next call of every rebalance tells which are assigned."""
        self.is_settled = False

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Forget the partitions that are not assigned any more, and have kafka-python fetch none."""
        self._consumer.pause(*assigned)
        self.is_settled = True
        self.generation += 1
        self.assigned = {partition: self.assigned.get(partition, self.generation) for partition in assigned}
        self._forget(self.unread_from.keys() - assigned)

    def on_partitions_lost(self, lost: set[TopicPartition]) -> None:
        """Forget the partitions that were lost."""
        self.is_settled = False
        self.generation += 1
        self.assigned = {
            partition: generation for partition, generation in self.assigned.items() if partition not in lost
        }
        self._forget(lost)

    def go_back(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read these partitions from other offsets; what was polled before may be of another history."""
        self.generation += 1
        self.unread_from |= offsets

    def _forget(self, partitions: set[TopicPartition]) -> None:
        for partition in partitions:
            self.unread_from.pop(partition, None)


class KafkaLogConsumer:
    """A member of a group, whose consumers share the partitions.

    It loses its partitions when it does not call `poll` for longer than `max_poll_interval_ms`.
    """

    def __init__(  # noqa: PLR0913 - what a consumer is made of
        self,
        servers: list[str],
        settings: KafkaSettings,
        group: str,
        topics: Sequence[str],
        on_deleted: OnDeleted = report_deleted,
        *,
        feed: str = "",
    ) -> None:
        """Join the group; call `on_deleted` once for records that are deleted before they are read.

        Changes are appended to the topic `feed`.
        """
        self._cluster, self._group, self._topics = Cluster(servers, settings), group, list(topics)
        with self._cluster.translated_errors():
            self._cluster.ensure_topics(self._topics)
            self._consumer = self._cluster.open(KafkaConsumer, group_id=group, **_OPTIONS)
            self._ownership = _Ownership(self._consumer)
            self._consumer.subscribe(self._topics, listener=self._ownership)
        self._fetcher = Fetcher(self._cluster, group)
        self._fetched: Mapping[TopicPartition, int] = {}  # `assigned`, as far as the fetcher knows
        self._group_due = 0.0
        self._history = History(self._cluster, self._consumer)
        self._transactions = FeedTransactions(self._cluster, group, feed)
        self._deletions: list[PositionChange] = []

        def note_deleted(change: PositionChange) -> None:
            on_deleted(change)
            self._deletions.append(change)

        self._deleted = DeletedUnread(self._consumer, self._history.commit_position, note_deleted)

    def poll(self, limit: int, timeout: float, max_bytes: int = MAX_POLL_BYTES) -> list[StoredRecord]:
        deadline = time.monotonic() + timeout
        while True:
            is_due = not self._ownership.is_settled or time.monotonic() >= self._group_due
            if is_due:
                with self._cluster.translated_errors():
                    self._take_part(deadline)
            fetched = self._fetcher.fetch(limit, max_bytes) if self._ownership.is_settled else {}
            for partition, run in fetched.items():
                self._ownership.unread_from.setdefault(partition, run.records[0].offset)
            if (fetched or is_due) and not self._continues(fetched):
                return []
            remaining = deadline - time.monotonic()
            if fetched or remaining <= 0:
                return [stored for run in fetched.values() for stored in run.records]
            # Not by librdkafka, which waits by the wall clock.
            time.sleep(min(_WAIT_SECONDS, remaining))

    def _take_part(self, deadline: float) -> None:
        """Take part in the group, and have the partitions fetched that are assigned.

        Wait while it is being settled who gets which. Raises KafkaError.
        """
        self._consumer.poll()
        if not self._ownership.is_settled:  # which takes all members, and some time
            self._consumer.poll(timeout_ms=max(0, int(1000 * (deadline - time.monotonic()))))
        assigned = self._ownership.assigned
        if assigned != self._fetched:
            offsets = {
                partition: self._position(partition)
                for partition, generation in assigned.items()
                if self._fetched.get(partition) != generation
            }
            self._fetcher.assign(assigned, offsets)
            self._fetched = assigned
        self._group_due = time.monotonic() + _GROUP_SECONDS

    def _position(self, partition: TopicPartition) -> int:
        """Return the committed offset of a partition, or that of its first record. Raises KafkaError."""
        offset: int | None = self._consumer.position(partition, timeout_ms=_POSITION_MILLISECONDS)
        if offset is None:
            raise KafkaTimeoutError(f"{partition.topic}/{partition.partition} has no position yet")
        return offset

    def commit(self, records: Sequence[StoredRecord], load: str = "", changes: Sequence[Record] = ()) -> None:
        newest: dict[TopicPartition, StoredRecord] = {}
        for stored in sorted(records, key=lambda stored: stored.offset):
            newest[TopicPartition(stored.partition.topic, stored.partition.number)] = stored
        if lost := newest.keys() - self._ownership.unread_from.keys():
            names = ", ".join(sorted(f"{topic}/{number}" for topic, number in lost))
            raise CommitFailed(
                f"{names} went to another consumer of group {self._group!r}, which reads the records again"
            )
        with self._cluster.translated_errors():
            if not self._history.is_same(newest):
                raise CommitFailed(
                    "the log is not the one that these records were read from: it is read again from where"
                    " both agree"
                )
            self._history.commit(newest, load, partial(self._publish, changes) if changes else None)
        self._ownership.unread_from.update(
            {partition: record.offset + 1 for partition, record in newest.items()}
        )

    def _publish(
        self, changes: Sequence[Record], offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> None:
        self._transactions.commit(changes, offsets, self._consumer.group_metadata())

    def bookmarks(self) -> Mapping[Partition, Bookmarks]:
        return {
            Partition(*partition): bookmarks for partition, bookmarks in self._history.bookmarks().items()
        }

    def read_again(self, after: Mapping[Partition, Bookmark | None]) -> Mapping[Partition, int]:
        marks = {TopicPartition(partition.topic, partition.number): mark for partition, mark in after.items()}
        with self._cluster.translated_errors():
            offsets = self._history.read_again(marks)
        self._ownership.go_back(offsets)
        self.rewind()
        return {
            Partition(*partition): missing
            for partition, mark in marks.items()
            if (missing := offsets[partition] - (mark.offset + 1 if mark else 0))
        }

    def changes(self) -> list[PositionChange]:
        deletions, self._deletions = self._deletions, []
        return [*self._history.changes(), *deletions]

    def rewind(self) -> None:
        self._fetcher.seek(self._ownership.unread_from)
        self._deleted.rewind(self._ownership.unread_from)
        self._history.rewind()

    def generation(self) -> int:
        return self._ownership.generation

    def backlog(self) -> list[Backlog]:
        return _backlog(self._cluster, self._group, self._topics)

    def close(self) -> None:
        self._transactions.close()
        self._fetcher.close()
        with suppress(KafkaError):
            self._history.close()
        with suppress(KafkaError):  # the group finds out without it
            self._consumer.close(autocommit=False, timeout_ms=_COMMIT_MILLISECONDS)

    def _continues(self, fetched: Fetched) -> bool:
        """Return whether records follow those read before; otherwise go back to what is committed."""
        try:
            with self._cluster.translated_errors():
                offsets = self._history.check(fetched, self._ownership.generation)
                if offsets is None:
                    self._deleted.check(fetched, self._ownership.generation)
        except (LogUnavailable, CommitFailed):
            self.rewind()  # the records fetched were not returned
            raise
        if offsets is not None:
            self._fetcher.renew()
            self._ownership.go_back(offsets)
            self.rewind()
        return offsets is None


def backlog(servers: list[str], settings: KafkaSettings, group: str, topics: Sequence[str]) -> list[Backlog]:
    """Return the position of a group without joining it, for the topics that exist. Raises LogUnavailable."""
    cluster = Cluster(servers, settings)
    entries = _backlog(cluster, group, topics)
    since = _appended_at(cluster, {entry.partition: entry.committed for entry in entries if entry.lag})
    return [replace(entry, waiting_since=since.get(entry.partition)) for entry in entries]


def _appended_at(cluster: Cluster, offsets: Mapping[Partition, int]) -> dict[Partition, datetime]:
    """Return when the first record at or after each offset was appended, if the brokers answer in time."""
    appended_at: dict[Partition, datetime] = {}
    if not offsets:
        return appended_at
    partitions = {TopicPartition(partition.topic, partition.number): partition for partition in offsets}
    deadline = time.monotonic() + _TIMESTAMPS_SECONDS
    with cluster.translated_errors(), closing(cluster.open(KafkaConsumer, **_TIMESTAMPS_OPTIONS)) as consumer:
        consumer.assign(list(partitions))
        for kafka_partition, partition in partitions.items():
            consumer.seek(kafka_partition, offsets[partition])
        while len(appended_at) < len(offsets) and time.monotonic() < deadline:
            for kafka_partition, messages in consumer.poll(timeout_ms=_POLL_MILLISECONDS).items():
                appended_at[partitions[kafka_partition]] = datetime.fromtimestamp(
                    messages[0].timestamp / 1000, UTC
                )
                consumer.pause(kafka_partition)
    return appended_at


def _backlog(cluster: Cluster, group: str, topics: Sequence[str]) -> list[Backlog]:
    with cluster.translated_errors(), closing(cluster.admin()) as admin:
        partitions = partitions_of(admin, topics)
        if not partitions:
            return []
        first = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.EARLIEST))
        after_last = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
        committed = _committed_offsets(admin, group, partitions)
        return [
            Backlog(
                Partition(*partition),
                after_last[partition].offset,
                max(first[partition].offset, committed[partition].offset),
            )
            for partition in partitions
        ]


def partitions_of(admin: Any, topics: Sequence[str]) -> list[TopicPartition]:
    """Return the partitions of those topics that exist."""
    return sorted(
        TopicPartition(topic["name"], partition["partition_index"])
        for topic in admin.describe_topics(list(topics))
        for partition in topic["partitions"]
    )


def _committed_offsets(
    admin: Any, group: str, partitions: list[TopicPartition]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Return the offsets of a group.

    The first such request makes the cluster create a topic for groups, and fails meanwhile.
    """
    deadline = time.monotonic() + _GROUP_READY_SECONDS
    while True:
        try:
            offsets: dict[TopicPartition, OffsetAndMetadata] = admin.list_group_offsets({group: partitions})[
                group
            ]
        except RetriableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return offsets
