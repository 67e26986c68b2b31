"""Reads from Kafka as one of a group's consumers, and tells where a group stands."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from kafka import (
    ConsumerRebalanceListener,
    KafkaConsumer,
    OffsetAndMetadata,
    OffsetSpec,
    TopicPartition,
)
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import KafkaError, RetriableError

from ingest.errors import CommitFailed, LogUnavailable
from ingest.log import MOST_BYTES, Backlog, Change, Partition, StoredRecord
from ingest.log.bookmarks import Bookmark, Bookmarks
from ingest.log.kafka.cluster import Cluster
from ingest.log.kafka.comparer import stored_record
from ingest.log.kafka.deleted import DeletedUnread, Fetched, OnDeleted, report_deleted
from ingest.log.kafka.history import History
from ingest.log.kafka_settings import LARGEST_RECORD, KafkaSettings

_COMMIT_MILLISECONDS = 10_000
_GROUPS_READY_SECONDS = 5.0
_ASK_AGAIN_SECONDS = 0.1
_LOOK_SECONDS = 5.0
_LOOK_MILLISECONDS = 500
_LOOK_OPTIONS = {
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
    "max_poll_interval_ms": 600_000,  # a load happens between two polls
    "session_timeout_ms": 10_000,  # how long the partitions of a killed consumer wait for another
    "heartbeat_interval_ms": 1_000,  # how soon the others notice that one joined or left
    "bootstrap_timeout_ms": 10_000,
    "request_timeout_ms": 10_000,
    "metadata_max_age_ms": 60_000,
    "fetch_max_bytes": MOST_BYTES,  # of each broker; compressed, and unpacked only when polled
    "partition_assignment_strategy": [RoundRobinPartitionAssignor],
    "metrics_enabled": False,
}


class _Ownership(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Which partitions were polled while they were ours, and from where each is read again unless that is committed.

    Kafka itself checks that a commit comes from a member of the group, not that the partition is still that member's.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.unread_from: dict[TopicPartition, int] = {}

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Every rebalance begins with this; which ones are ours afterwards, the next call tells."""

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self.generation += 1
        self._forget(self.unread_from.keys() - assigned)

    def on_partitions_lost(self, lost: set[TopicPartition]) -> None:
        self.generation += 1
        self._forget(lost)

    def go_back(self, offsets: Mapping[TopicPartition, int]) -> None:
        """These are read from there; what was polled before may be of another history."""
        self.generation += 1
        self.unread_from |= offsets

    def _forget(self, partitions: set[TopicPartition]) -> None:
        for partition in partitions:
            self.unread_from.pop(partition, None)


class KafkaLogConsumer:
    """A group's consumers share out the partitions. One that stays away from `poll` for longer than `max_poll_interval_ms` loses its own."""

    def __init__(
        self,
        servers: list[str],
        settings: KafkaSettings,
        group: str,
        topics: Sequence[str],
        on_deleted: OnDeleted = report_deleted,
    ) -> None:
        """`on_deleted` is called once with the number of a partition's records that were deleted before the group had read them."""
        self._cluster, self._group, self._topics = Cluster(servers, settings), group, list(topics)
        self._ownership = _Ownership()
        with self._cluster.translated_errors():
            self._cluster.ensure_topics(self._topics)
            self._consumer = self._cluster.open(KafkaConsumer, group_id=group, **_OPTIONS)
            self._consumer.subscribe(self._topics, listener=self._ownership)
        self._history = History(self._cluster, self._consumer)
        self._deleted = DeletedUnread(self._consumer, self._history.commit_position, on_deleted)

    def poll(self, limit: int, timeout: float, most_bytes: int = MOST_BYTES) -> list[StoredRecord]:
        """Few at a time, because what was fetched is unpacked as it is polled, and a small fetch may unpack to gigabytes."""
        found: list[StoredRecord] = []
        size = 0
        while len(found) < limit and size < most_bytes:
            some = min(limit - len(found), max(1, (most_bytes - size) // LARGEST_RECORD))
            more = self._poll(some, 0.0 if found else timeout)
            if not more:
                break
            found += more
            size += sum(each.record.size for each in more)
        return found

    def _poll(self, limit: int, timeout: float) -> list[StoredRecord]:
        with self._cluster.translated_errors():
            fetched = self._consumer.poll(timeout_ms=int(timeout * 1000), max_records=limit)
        for partition, messages in fetched.items():
            self._ownership.unread_from.setdefault(partition, messages[0].offset)
        if not self._continues(fetched):
            return []
        return [stored_record(message) for messages in fetched.values() for message in messages]

    def commit(self, records: Sequence[StoredRecord], load: str = "") -> None:
        done: dict[TopicPartition, StoredRecord] = {}
        for record in sorted(records, key=lambda each: each.offset):
            done[TopicPartition(record.partition.topic, record.partition.number)] = record
        if lost := done.keys() - self._ownership.unread_from.keys():
            names = ", ".join(sorted(f"{topic}/{number}" for topic, number in lost))
            raise CommitFailed(
                f"{names} went to another consumer of group {self._group!r}, which reads the records again"
            )
        with self._cluster.translated_errors():
            if not self._history.is_same(done):
                raise CommitFailed(
                    "the log is not the one that these records were read from: it is read again from where both agree"
                )
            self._history.commit(done, load)
        self._ownership.unread_from.update(
            {partition: record.offset + 1 for partition, record in done.items()}
        )

    def bookmarks(self) -> Mapping[Partition, Bookmarks]:
        return {Partition(*each): kept for each, kept in self._history.bookmarks().items() if kept.marks}

    def read_again(self, after: Mapping[Partition, Bookmark | None]) -> Mapping[Partition, int]:
        wanted = {TopicPartition(each.topic, each.number): mark for each, mark in after.items()}
        with self._cluster.translated_errors():
            offsets = self._history.go_back(wanted)
        self._ownership.go_back(offsets)
        self.rewind()
        gone = {each: offsets[each] - (mark.offset + 1 if mark else 0) for each, mark in wanted.items()}
        return {Partition(*each): count for each, count in gone.items() if count}

    def changes(self) -> list[Change]:
        return self._history.changes()

    def rewind(self) -> None:
        for partition, offset in self._ownership.unread_from.items():
            self._consumer.seek(partition, offset)
        self._deleted.rewound(self._ownership.unread_from)
        self._history.rewound()

    def generation(self) -> int:
        return self._ownership.generation

    def backlog(self) -> list[Backlog]:
        return _backlog(self._cluster, self._group, self._topics)

    def close(self) -> None:
        with suppress(KafkaError):
            self._history.close()
        with suppress(KafkaError):  # the group finds out by itself
            self._consumer.close(autocommit=False, timeout_ms=_COMMIT_MILLISECONDS)

    def _continues(self, fetched: Fetched) -> bool:
        """Whether what was fetched follows what was read before; where it does not, all that is not committed is read again."""
        try:
            with self._cluster.translated_errors():
                back = self._history.look(fetched, self._ownership.generation)
                if back is None:
                    self._deleted.look(fetched, self._ownership.generation)
        except (LogUnavailable, CommitFailed):
            self.rewind()  # nobody got what was fetched
            raise
        if back is not None:
            self._ownership.go_back(back)
            self.rewind()
        return back is None


def backlog(servers: list[str], settings: KafkaSettings, group: str, topics: Sequence[str]) -> list[Backlog]:
    """Where a group stands, without joining it; nothing for topics that are not there. Raises LogUnavailable."""
    cluster = Cluster(servers, settings)
    entries = _backlog(cluster, group, topics)
    since = _appended_at(cluster, {entry.partition: entry.committed for entry in entries if entry.lag})
    return [replace(entry, waiting_since=since.get(entry.partition)) for entry in entries]


def _appended_at(cluster: Cluster, offsets: Mapping[Partition, int]) -> dict[Partition, datetime]:
    """When the first record at or after each offset was appended; left out for those that the brokers do not give in time."""
    found: dict[Partition, datetime] = {}
    if not offsets:
        return found
    partitions = {TopicPartition(partition.topic, partition.number): partition for partition in offsets}
    deadline = time.monotonic() + _LOOK_SECONDS
    with cluster.translated_errors(), closing(cluster.open(KafkaConsumer, **_LOOK_OPTIONS)) as consumer:
        consumer.assign(list(partitions))
        for kafka_partition, partition in partitions.items():
            consumer.seek(kafka_partition, offsets[partition])
        while len(found) < len(offsets) and time.monotonic() < deadline:
            for kafka_partition, messages in consumer.poll(timeout_ms=_LOOK_MILLISECONDS).items():
                found[partitions[kafka_partition]] = datetime.fromtimestamp(messages[0].timestamp / 1000, UTC)
                consumer.pause(kafka_partition)
    return found


def _backlog(cluster: Cluster, group: str, topics: Sequence[str]) -> list[Backlog]:
    with cluster.translated_errors(), closing(cluster.admin()) as admin:
        partitions = partitions_of(admin, topics)
        if not partitions:
            return []
        first = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.EARLIEST))
        after_last = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
        committed = _committed(admin, group, partitions)
        return [
            Backlog(
                Partition(*each), after_last[each].offset, max(first[each].offset, committed[each].offset)
            )
            for each in partitions
        ]


def partitions_of(admin: Any, topics: Sequence[str]) -> list[TopicPartition]:
    """Of those topics that are there."""
    return sorted(
        TopicPartition(topic["name"], partition["partition_index"])
        for topic in admin.describe_topics(list(topics))
        for partition in topic["partitions"]
    )


def _committed(
    admin: Any, group: str, partitions: list[TopicPartition]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """A cluster's first question about a group has it make the topic where groups are kept, and is refused meanwhile."""
    deadline = time.monotonic() + _GROUPS_READY_SECONDS
    while True:
        try:
            offsets: dict[TopicPartition, OffsetAndMetadata] = admin.list_group_offsets({group: partitions})[
                group
            ]
        except RetriableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_ASK_AGAIN_SECONDS)
        else:
            return offsets
