"""Comparison of single records with their bookmarks, to tell whether the log still has what was read."""

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import Enum, auto
from sys import intern
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError, UnknownTopicOrPartitionError

from ingest.log import Partition, Record, StoredRecord
from ingest.log.bookmarks import Bookmark, digest_of
from ingest.log.kafka.cluster import Cluster

_COMPARE_SECONDS = 30.0
_POLL_MILLISECONDS = 100
_OFFSETS_MILLISECONDS = 2_000
_OPTIONS = {
    "group_id": None,
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",
    "max_partition_fetch_bytes": 64 * 1024,  # one record is wanted; a larger one comes whole all the same
    "fetch_max_wait_ms": 50,
    "bootstrap_timeout_ms": 10_000,
    "request_timeout_ms": 10_000,
    "metadata_max_age_ms": 60_000,
    "metrics_enabled": False,
}


class Match(Enum):
    """The result of comparing the log with a bookmark."""

    SAME = auto()
    OTHER = auto()  # another record, or none, as the log ends before
    DELETED = auto()  # none, as the log begins after it


class RecordComparer:
    """A client beside that of a consumer, connected when it is first needed.

    Its methods raise KafkaError, LogUnavailable.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._client: Any = None

    def compare(self, marks: Mapping[TopicPartition, Bookmark]) -> dict[TopicPartition, Match]:
        """Compare each bookmark with the record at its offset.

        Raises KafkaTimeoutError when a partition does not answer.
        """
        matches = self.compare_within(marks, _COMPARE_SECONDS)
        if waiting := marks.keys() - matches.keys():
            names = ", ".join(sorted(f"{partition.topic}/{partition.partition}" for partition in waiting))
            raise KafkaTimeoutError(f"{names} gave no record within {_COMPARE_SECONDS:.0f} s")
        return matches

    def compare_within(
        self, marks: Mapping[TopicPartition, Bookmark], seconds: float
    ) -> dict[TopicPartition, Match]:
        """Compare as `compare` does, but leave out partitions that do not answer in time."""
        matches: dict[TopicPartition, Match] = {}
        if not marks:
            return matches
        client = self._connected()
        client.assign(list(marks))
        for partition, mark in marks.items():
            client.seek(partition, mark.offset)
        deadline = time.monotonic() + seconds
        while (waiting := marks.keys() - matches.keys()) and time.monotonic() < deadline:
            # To pause the other partitions instead would keep what was fetched of them, and delay the next
            # comparison.
            client.assign(list(waiting))
            # With max_records the other records that were fetched are not unpacked.
            fetched = client.poll(timeout_ms=_POLL_MILLISECONDS, max_records=1)
            matches |= {
                partition: _compare(messages[0], marks[partition]) for partition, messages in fetched.items()
            }
            if not fetched:
                with suppress(KafkaTimeoutError, UnknownTopicOrPartitionError):
                    matches |= _compare_outside(
                        client, {partition: marks[partition] for partition in waiting}
                    )
        return matches

    def close(self) -> None:
        if self._client is not None:
            self._client.close(autocommit=False)

    def _connected(self) -> Any:
        if self._client is None:
            self._client = self._cluster.open(KafkaConsumer, **_OPTIONS)
        return self._client


def _compare(message: Any, mark: Bookmark) -> Match:
    """Compare a message with a bookmark.

    Instead of a record before its beginning Kafka returns the first that the log has.
    """
    if message.offset > mark.offset:
        return Match.DELETED
    return Match.SAME if digest_of(stored_record(message)) == mark.digest else Match.OTHER


def _compare_outside(client: Any, marks: Mapping[TopicPartition, Bookmark]) -> dict[TopicPartition, Match]:
    """Return the matches of partitions whose log ends before the bookmark, or has no record any more."""
    first, after_last = (
        offsets_of(query, marks, _OFFSETS_MILLISECONDS)
        for query in (client.beginning_offsets, client.end_offsets)
    )
    ended = {
        partition: Match.OTHER for partition, mark in marks.items() if after_last[partition] <= mark.offset
    }
    return ended | {
        partition: Match.DELETED
        for partition, mark in marks.items()
        if mark.offset < first[partition] == after_last[partition]
    }


def offsets_of(
    query: Any, partitions: Iterable[TopicPartition], milliseconds: int
) -> dict[TopicPartition, int]:
    """Call `beginning_offsets` or `end_offsets` of kafka-python.

    Raises KafkaError, where these raise KeyError for a deleted topic.
    """
    try:
        return dict(query(list(partitions), timeout_ms=milliseconds))
    except KeyError as error:
        raise UnknownTopicOrPartitionError(f"{error.args[0]} is not there just now") from None


def stored_record(message: Any) -> StoredRecord:
    """Return a message of kafka-python as a stored record."""
    record = build_record(message.key, message.value, message.headers)
    partition = Partition(message.topic, message.partition)
    return StoredRecord(record, partition, message.offset, message.timestamp / 1000)


def build_record(
    key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]
) -> Record:
    """Return what Kafka has as a record, also where another program has written it.

    All records share the names of their headers, which take less memory then, and are pickled once a batch.
    """
    texts = {intern(name): (text or b"").decode(errors="replace") for name, text in headers}
    return Record((key or b"").decode(errors="replace"), value or b"", texts)
