"""Keeps a consumer in the history of the log that its positions were taken in.

Kafka goes on at an offset whatever the records before it are. A broker that comes back without its unsynced tail, a topic that is made
anew, or a restored copy has other records there once new ones have passed the old position.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import OffsetMetadataTooLargeError

from ingest.log import Change, Partition, StoredRecord
from ingest.log.bookmarks import Bookmark, Bookmarks
from ingest.log.kafka.cluster import Cluster
from ingest.log.kafka.comparer import Match, RecordComparer, offsets_of, stored_record
from ingest.log.kafka.deleted import Fetched

_PATIENCE_MILLISECONDS = 10_000
_LOOK_SECONDS = 15.0  # between two comparisons of all partitions
_ANSWER_SECONDS = 2.0  # for such a comparison; a partition that has no leader just now is left for the next
_NEVER = -1
_NO_TOPIC_ID = "00000000-0000-0000-0000-000000000000"


class History:
    """Knows for each partition of a consumer which records the log must have. Everything raises KafkaError, LogUnavailable."""

    def __init__(self, cluster: Cluster, consumer: Any) -> None:
        self._cluster, self._consumer = cluster, consumer
        self._comparer = RecordComparer(cluster)
        self._generation = _NEVER
        self._ids: dict[str, str] = {}
        self._bookmarks: dict[TopicPartition, Bookmarks] = {}
        self._first: dict[
            TopicPartition, Bookmark
        ] = {}  # polled since the last commit, of partitions without a bookmark
        self._last: dict[TopicPartition, tuple[Bookmark, int]] = {}  # polled last, and its leader epoch
        self._due = 0.0
        self._in_doubt = False  # whether the log turned out to be another one
        self._changes: list[Change] = []

    def look(self, fetched: Fetched, generation: int) -> dict[TopicPartition, int] | None:
        """Return None where `fetched` continues what was read; else the offsets to go back to, and nothing polled may be committed.

        The log is asked when partitions are new, where it may have changed, and every few seconds, because a log that was cut and has
        grown to the old length gives no other sign.
        """
        self._in_doubt = self._in_doubt or (generation == self._generation and not self._agrees(fetched))
        if generation != self._generation or self._in_doubt:
            back = self._find_positions()
            if back or self._in_doubt:
                self._in_doubt = False
                return back
            self._generation = generation
        self._note(fetched)
        return None

    def is_same(self, partitions: Iterable[TopicPartition]) -> bool:
        """Whether the log still has what was read of these before what is to be committed now; where not, the next `look` finds out more."""
        marks = {partition: mark for partition in partitions if (mark := self._before(partition))}
        self._in_doubt = Match.OTHER in self._comparer.compare(marks).values()
        return not self._in_doubt

    def rewound(self) -> None:
        """What was polled last is not what precedes the next poll; whatever went wrong may have been the log's end."""
        self._last.clear()
        self._due = 0.0

    def changes(self) -> list[Change]:
        """Return them once."""
        changes, self._changes = self._changes, []
        return changes

    def bookmarks(self) -> Mapping[TopicPartition, Bookmarks]:
        return self._bookmarks

    def commit(self, newest: Mapping[TopicPartition, StoredRecord], load: str) -> None:
        """Commits these with a bookmark each."""
        kept = {
            partition: self._bookmarks.get(partition, Bookmarks()).with_newest(
                Bookmark.of(record, load), self._id(partition)
            )
            for partition, record in newest.items()
        }
        self._commit(
            {partition: (record.offset + 1, kept[partition]) for partition, record in newest.items()}
        )

    def commit_position(self, partition: TopicPartition, offset: int) -> None:
        """Commits a position with the bookmarks there are."""
        self._commit({partition: (offset, self._bookmarks.get(partition, Bookmarks()))})

    def go_back(self, after: Mapping[TopicPartition, Bookmark | None]) -> dict[TopicPartition, int]:
        """Commits, and returns, the offsets of the first records that there are after these bookmarks, or at all for None."""
        first = offsets_of(self._consumer.beginning_offsets, after, _PATIENCE_MILLISECONDS) if after else {}
        offsets = {
            partition: max(first[partition], mark.offset + 1 if mark else 0)
            for partition, mark in after.items()
        }
        self._commit(
            {
                partition: (offsets[partition], self._bookmarks.get(partition, Bookmarks()).back_to(mark))
                for partition, mark in after.items()
            }
        )
        return offsets

    def close(self) -> None:
        self._comparer.close()

    def _find_positions(self) -> dict[TopicPartition, int]:
        """Find for each partition the newest bookmark that the log agrees with; returns the offsets of those that have to go back."""
        assigned = self._consumer.assignment()
        committed = {
            partition: self._consumer.committed(partition, metadata=True, timeout_ms=_PATIENCE_MILLISECONDS)
            for partition in assigned
        }
        self._bookmarks = {partition: self._newer(partition, each) for partition, each in committed.items()}
        self._ids = self._topic_ids({partition.topic for partition in assigned})
        agreed = self._agreed()
        after = {
            partition: mark for partition, mark in agreed.items() if mark != self._bookmarks[partition].newest
        }
        polled = self._comparer.compare(
            {
                partition: mark
                for partition, mark in self._first.items()
                if partition in assigned - agreed.keys()
            }
        )
        after |= {partition: None for partition, finding in polled.items() if finding is Match.OTHER}
        newest = {partition: self._bookmarks[partition].newest for partition in after}
        offsets = self.go_back(after)
        for partition, offset in offsets.items():
            mark = newest[partition]
            self._changes.append(Change(Partition(*partition), mark.offset + 1 if mark else offset, offset))
        self._first.clear()
        self.rewound()
        self._due = time.monotonic() + _LOOK_SECONDS
        return offsets

    def _newer(self, partition: TopicPartition, committed: OffsetAndMetadata | None) -> Bookmarks:
        """What is committed, or what is known here where that is more: the commits of a log that was restored, or of a deleted topic, are gone too."""
        known = self._bookmarks.get(partition, Bookmarks())
        kept = Bookmarks.decode(committed.metadata or "") if committed else Bookmarks()
        is_older = known.newest and (not kept.newest or kept.newest.offset < known.newest.offset)
        return known if is_older and (self._in_doubt or not committed) else kept

    def _agreed(self) -> dict[TopicPartition, Bookmark | None]:
        """By partition with bookmarks. Of a record that was deleted only the topic's identity can tell."""
        agreed: dict[TopicPartition, Bookmark | None] = {}
        left = {partition: list(kept.marks) for partition, kept in self._bookmarks.items() if kept.marks}
        while left:
            agreed |= {
                partition: None for partition, marks in left.items() if not marks or self._is_anew(partition)
            }
            left = {partition: marks for partition, marks in left.items() if partition not in agreed}
            for partition, finding in self._comparer.compare(
                {partition: marks[0] for partition, marks in left.items()}
            ).items():
                if finding is Match.OTHER:
                    left[partition].pop(0)
                else:
                    agreed[partition] = left.pop(partition)[0]
        return agreed

    def _is_anew(self, partition: TopicPartition) -> bool:
        log, now = self._bookmarks[partition].log, self._id(partition)
        return bool(log and now) and log != now

    def _agrees(self, fetched: Fetched) -> bool:
        """Asks about partitions that jump, and now and then about all, of which some may have no leader just now."""
        if jumping := [
            partition for partition, messages in fetched.items() if self._jumps(partition, messages)
        ]:
            return (
                Match.OTHER
                not in self._comparer.compare(
                    {partition: self._last[partition][0] for partition in jumping}
                ).values()
            )
        if time.monotonic() < self._due:
            return True
        marks = {
            partition: mark for partition in self._consumer.assignment() if (mark := self._before(partition))
        }
        found = self._comparer.compare_within(marks, _ANSWER_SECONDS)
        self._due = time.monotonic() + _LOOK_SECONDS
        return Match.OTHER not in found.values()

    def _jumps(self, partition: TopicPartition, messages: Sequence[Any]) -> bool:
        """Whether it has another leader epoch than before, or goes back: Kafka's client does, by itself, where it finds the log cut."""
        if partition not in self._last:
            return False
        last, epoch = self._last[partition]
        return bool(messages[0].leader_epoch != epoch or messages[0].offset <= last.offset)

    def _before(self, partition: TopicPartition) -> Bookmark | None:
        """The newest record before what is not committed yet, or the first of that."""
        return self._bookmarks.get(partition, Bookmarks()).newest or self._first.get(partition)

    def _note(self, fetched: Fetched) -> None:
        for partition, messages in fetched.items():
            if not self._bookmarks.get(partition, Bookmarks()).marks:
                self._first.setdefault(partition, Bookmark.of(stored_record(messages[0])))
            self._last[partition] = Bookmark.of(stored_record(messages[-1])), messages[-1].leader_epoch

    def _commit(self, positions: Mapping[TopicPartition, tuple[int, Bookmarks]]) -> None:
        """Without bookmarks where the brokers take no text of this length with a commit."""
        texts = {partition: kept.encode() if kept.marks else "" for partition, (_, kept) in positions.items()}
        try:
            self._send(
                {
                    partition: OffsetAndMetadata(offset, texts[partition], -1)
                    for partition, (offset, _) in positions.items()
                }
            )
        except OffsetMetadataTooLargeError:
            self._send(
                {partition: OffsetAndMetadata(offset, "", -1) for partition, (offset, _) in positions.items()}
            )
        self._bookmarks |= {partition: kept for partition, (_, kept) in positions.items()}
        for partition in positions:
            self._first.pop(partition, None)

    def _send(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        if offsets:
            self._consumer.commit(dict(offsets), timeout_ms=_PATIENCE_MILLISECONDS)

    def _topic_ids(self, topics: set[str]) -> dict[str, str]:
        """Brokers before Kafka 2.8 have none."""
        with closing(self._cluster.admin()) as admin:
            described: Sequence[Mapping[str, Any]] = admin.describe_topics(sorted(topics)) if topics else ()
        ids = {topic["name"]: str(topic.get("topic_id") or "") for topic in described}
        return {name: identity for name, identity in ids.items() if identity != _NO_TOPIC_ID}

    def _id(self, partition: TopicPartition) -> str:
        return self._ids.get(partition.topic, "")
