"""Detection of a log that is not the one in which a consumer's positions were taken.

Kafka goes on at an offset whatever the records before it are. A broker that comes back without its unsynced
tail, a topic that is made anew, or a restored copy has other records there once new ones have passed the old
position.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import OffsetMetadataTooLargeError

from ingest.log import Partition, PositionChange, StoredRecord
from ingest.log.bookmarks import Bookmark, Bookmarks
from ingest.log.kafka.cluster import Cluster
from ingest.log.kafka.comparer import Match, RecordComparer, offsets_of
from ingest.log.kafka.fetcher import Fetched, Run

_TIMEOUT_MILLISECONDS = 10_000
_COMPARE_EVERY_SECONDS = 15.0
_COMPARE_SECONDS = 2.0  # a partition without a leader is left for the next comparison
_NEVER = -1
_NO_TOPIC_ID = "00000000-0000-0000-0000-000000000000"


Send = Callable[[Mapping[TopicPartition, OffsetAndMetadata]], None]


class History:
    """Knows for each partition of a consumer which records the log must have.

    Its methods raise KafkaError, LogUnavailable.
    """

    def __init__(self, cluster: Cluster, consumer: Any) -> None:
        self._cluster, self._consumer = cluster, consumer
        self._comparer = RecordComparer(cluster)
        self._generation = _NEVER
        self._topic_ids: dict[str, str] = {}
        self._bookmarks: dict[TopicPartition, Bookmarks] = {}
        # The first record polled since the last commit, for partitions without bookmarks.
        self._first: dict[TopicPartition, Bookmark] = {}
        # The record polled last, and its leader epoch.
        self._last: dict[TopicPartition, tuple[Bookmark, int | None]] = {}
        self._due = 0.0
        self._in_doubt = False  # whether the log turned out to be another one
        self._changes: list[PositionChange] = []

    def check(self, fetched: Fetched, generation: int) -> dict[TopicPartition, int] | None:
        """Return None when the records fetched continue those read before.

        Otherwise return the offsets to go back to; then nothing that was polled may be committed. The log is
        compared when partitions are new, when it may have changed, and every few seconds: a log that was cut
        and has grown to its old length gives no other sign.
        """
        self._in_doubt = self._in_doubt or (generation == self._generation and not self._agrees(fetched))
        if generation != self._generation or self._in_doubt:
            offsets = self._find_positions()
            if offsets or self._in_doubt:
                self._in_doubt = False
                return offsets
            self._generation = generation
        self._remember(fetched)
        return None

    def is_same(self, partitions: Iterable[TopicPartition]) -> bool:
        """Return whether the log still has what was read of these partitions before.

        If not, the next `check` finds out more.
        """
        marks = {partition: mark for partition in partitions if (mark := self._last_known(partition))}
        self._in_doubt = Match.OTHER in self._comparer.compare(marks).values()
        return not self._in_doubt

    def rewind(self) -> None:
        """Forget what was polled last, and compare soon: the log may be what went wrong."""
        self._last.clear()
        self._due = 0.0

    def changes(self) -> list[PositionChange]:
        """Return the changes since the last call."""
        changes, self._changes = self._changes, []
        return changes

    def bookmarks(self) -> Mapping[TopicPartition, Bookmarks]:
        """Return the bookmarks of each partition."""
        return self._bookmarks

    def commit(
        self, newest: Mapping[TopicPartition, StoredRecord], load: str, send: Send | None = None
    ) -> None:
        """Commit these records with a bookmark each. `send` is how, unless by the consumer."""
        bookmarks = {
            partition: self._bookmarks.get(partition, Bookmarks()).with_newest(
                Bookmark.of(record, load), self._topic_id(partition)
            )
            for partition, record in newest.items()
        }
        self._commit(
            {partition: (record.offset + 1, bookmarks[partition]) for partition, record in newest.items()},
            send or self._send,
        )

    def commit_position(self, partition: TopicPartition, offset: int) -> None:
        """Commit a position with the bookmarks that there are."""
        self._commit({partition: (offset, self._bookmarks.get(partition, Bookmarks()))}, self._send)

    def read_again(self, after: Mapping[TopicPartition, Bookmark | None]) -> dict[TopicPartition, int]:
        """Commit and return the offsets of the first records after these bookmarks, or of all for None."""
        return self._go_back(after, Bookmarks.again_from)

    def close(self) -> None:
        """Close the client for comparisons."""
        self._comparer.close()

    def _go_back(
        self,
        after: Mapping[TopicPartition, Bookmark | None],
        remaining: Callable[[Bookmarks, Bookmark | None], Bookmarks],
    ) -> dict[TopicPartition, int]:
        beginnings = (
            offsets_of(self._consumer.beginning_offsets, after, _TIMEOUT_MILLISECONDS) if after else {}
        )
        offsets = {
            partition: max(beginnings[partition], mark.offset + 1 if mark else 0)
            for partition, mark in after.items()
        }
        self._commit(
            {
                partition: (offsets[partition], remaining(self._bookmarks.get(partition, Bookmarks()), mark))
                for partition, mark in after.items()
            },
            self._send,
        )
        return offsets

    def _find_positions(self) -> dict[TopicPartition, int]:
        """Go back to the newest bookmark of each partition that the log agrees with.

        Returns the offsets of the partitions that go back.
        """
        assigned = self._consumer.assignment()
        committed = {
            partition: self._consumer.committed(partition, metadata=True, timeout_ms=_TIMEOUT_MILLISECONDS)
            for partition in assigned
        }
        self._bookmarks = {
            partition: self._newer(partition, offset) for partition, offset in committed.items()
        }
        self._topic_ids = self._read_topic_ids({partition.topic for partition in assigned})
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
        after |= {partition: None for partition, match in polled.items() if match is Match.OTHER}
        newest = {partition: self._bookmarks[partition].newest for partition in after}
        offsets = self._go_back(after, Bookmarks.back_to)
        for partition, offset in offsets.items():
            mark = newest[partition]
            self._changes.append(
                PositionChange(Partition(*partition), mark.offset + 1 if mark else offset, offset)
            )
        self._first.clear()
        self.rewind()
        self._due = time.monotonic() + _COMPARE_EVERY_SECONDS
        return offsets

    def _newer(self, partition: TopicPartition, committed: OffsetAndMetadata | None) -> Bookmarks:
        """Return the bookmarks that are committed, or those known here if they are newer.

        A restored log, or one that was made anew, may lack the commits too.
        """
        known = self._bookmarks.get(partition, Bookmarks())
        # librdkafka's client for Python, which commits together with changes, adds a NUL.
        text = (committed.metadata or "").removesuffix("\0") if committed else ""
        read = Bookmarks.decode(text)
        is_older = known.newest and (not read.newest or read.newest.offset < known.newest.offset)
        return known if is_older and (self._in_doubt or not committed) else read

    def _agreed(self) -> dict[TopicPartition, Bookmark | None]:
        """Return the newest bookmark of each partition that the log agrees with, or None.

        A bookmark whose record was deleted agrees if the topic has the same id.
        """
        agreed: dict[TopicPartition, Bookmark | None] = {}
        remaining = {
            partition: list(bookmarks.marks)
            for partition, bookmarks in self._bookmarks.items()
            if bookmarks.marks
        }
        while remaining:
            for partition in [*remaining]:
                if not remaining[partition] or self._is_new_topic(partition):
                    agreed[partition] = None
                    del remaining[partition]
            newest = {partition: marks[0] for partition, marks in remaining.items()}
            for partition, match in self._comparer.compare(newest).items():
                if match is Match.OTHER:
                    remaining[partition].pop(0)
                else:
                    agreed[partition] = remaining.pop(partition)[0]
        return agreed

    def _is_new_topic(self, partition: TopicPartition) -> bool:
        before, now = self._bookmarks[partition].log, self._topic_id(partition)
        return bool(before and now) and before != now

    def _agrees(self, fetched: Fetched) -> bool:
        """Compare partitions whose messages jump, and every few seconds all that have a leader."""
        if jumping := [partition for partition, run in fetched.items() if self._jumps(partition, run)]:
            marks = {partition: self._last[partition][0] for partition in jumping}
            return Match.OTHER not in self._comparer.compare(marks).values()
        if time.monotonic() < self._due:
            return True
        marks = {
            partition: mark
            for partition in self._consumer.assignment()
            if (mark := self._last_known(partition))
        }
        matches = self._comparer.compare_within(marks, _COMPARE_SECONDS)
        self._due = time.monotonic() + _COMPARE_EVERY_SECONDS
        return Match.OTHER not in matches.values()

    def _jumps(self, partition: TopicPartition, run: Run) -> bool:
        """Return whether records have another leader epoch, or go back.

        Kafka's client goes back when it finds that the log was cut.
        """
        if partition not in self._last:
            return False
        last, epoch = self._last[partition]
        return run.epoch != epoch or run.records[0].offset <= last.offset

    def _last_known(self, partition: TopicPartition) -> Bookmark | None:
        """Return the newest record that was committed, or else the first that was polled."""
        return self._bookmarks.get(partition, Bookmarks()).newest or self._first.get(partition)

    def _remember(self, fetched: Fetched) -> None:
        for partition, run in fetched.items():
            if not self._bookmarks.get(partition, Bookmarks()).marks:
                self._first.setdefault(partition, Bookmark.of(run.records[0]))
            self._last[partition] = Bookmark.of(run.records[-1]), run.epoch

    def _commit(self, positions: Mapping[TopicPartition, tuple[int, Bookmarks]], send: Send) -> None:
        """Commit offsets with their bookmarks, or without them when the brokers refuse so long a text."""
        texts = {
            partition: bookmarks.encode() if bookmarks.marks or bookmarks.done else ""
            for partition, (_, bookmarks) in positions.items()
        }
        try:
            send(
                {
                    partition: OffsetAndMetadata(offset, texts[partition], -1)
                    for partition, (offset, _) in positions.items()
                }
            )
        except OffsetMetadataTooLargeError:
            send(
                {partition: OffsetAndMetadata(offset, "", -1) for partition, (offset, _) in positions.items()}
            )
        self._bookmarks |= {partition: bookmarks for partition, (_, bookmarks) in positions.items()}
        for partition in positions:
            self._first.pop(partition, None)

    def _send(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        if offsets:
            self._consumer.commit(dict(offsets), timeout_ms=_TIMEOUT_MILLISECONDS)

    def _read_topic_ids(self, topics: set[str]) -> dict[str, str]:
        """Return the ids of topics; brokers before Kafka 2.8 have none."""
        with closing(self._cluster.admin()) as admin:
            descriptions: Sequence[Mapping[str, Any]] = (
                admin.describe_topics(sorted(topics)) if topics else ()
            )
        ids = {topic["name"]: str(topic.get("topic_id") or "") for topic in descriptions}
        return {name: topic_id for name, topic_id in ids.items() if topic_id != _NO_TOPIC_ID}

    def _topic_id(self, partition: TopicPartition) -> str:
        return self._topic_ids.get(partition.topic, "")
