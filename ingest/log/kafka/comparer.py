"""Reads single records back from Kafka, to tell whether the log still has them where they were read."""

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import Enum, auto
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError, UnknownTopicOrPartitionError

from ingest.log import Partition, Record, StoredRecord
from ingest.log.bookmarks import Bookmark, digest_of
from ingest.log.kafka.cluster import Cluster

_PATIENCE_SECONDS = 30.0
_POLL_MILLISECONDS = 100
_ASK_MILLISECONDS = 2_000
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
    """What the log has at a bookmark's offset."""

    SAME = auto()
    OTHER = auto()  # another record, or none because the log ends before
    DELETED = auto()  # the log begins after it


class RecordComparer:
    """A client beside a consumer's, which is connected when it is first needed. Everything raises KafkaError, LogUnavailable."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._client: Any = None

    def compare(self, marks: Mapping[TopicPartition, Bookmark]) -> dict[TopicPartition, Match]:
        """Compare each bookmark with the record that is at its offset now. Raises KafkaTimeoutError where some partition does not answer."""
        found = self.compare_within(marks, _PATIENCE_SECONDS)
        if waiting := marks.keys() - found.keys():
            names = ", ".join(sorted(f"{partition.topic}/{partition.partition}" for partition in waiting))
            raise KafkaTimeoutError(f"{names} gave no record within {_PATIENCE_SECONDS:.0f} s")
        return found

    def compare_within(
        self, marks: Mapping[TopicPartition, Bookmark], seconds: float
    ) -> dict[TopicPartition, Match]:
        """The same; leaves out partitions that do not answer in time."""
        found: dict[TopicPartition, Match] = {}
        if not marks:
            return found
        client = self._connected()
        client.assign(list(marks))
        for partition, mark in marks.items():
            client.seek(partition, mark.offset)
        deadline = time.monotonic() + seconds
        while (waiting := marks.keys() - found.keys()) and time.monotonic() < deadline:
            client.assign(
                list(waiting)
            )  # to pause the others instead would park what was fetched of them, and delay the next comparison
            fetched = client.poll(
                timeout_ms=_POLL_MILLISECONDS, max_records=1
            )  # the others that were fetched need not be unpacked
            found |= {
                partition: _compared(messages[0], marks[partition]) for partition, messages in fetched.items()
            }
            if not fetched:
                with suppress(KafkaTimeoutError, UnknownTopicOrPartitionError):
                    found |= _beyond(client, {partition: marks[partition] for partition in waiting})
        return found

    def close(self) -> None:
        if self._client is not None:
            self._client.close(autocommit=False)

    def _connected(self) -> Any:
        if self._client is None:
            self._client = self._cluster.open(KafkaConsumer, **_OPTIONS)
        return self._client


def _compared(message: Any, mark: Bookmark) -> Match:
    """Kafka gives the first record there is instead of one that is beyond the log's end or before its beginning."""
    if message.offset > mark.offset:
        return Match.DELETED
    return Match.SAME if digest_of(stored_record(message)) == mark.digest else Match.OTHER


def _beyond(client: Any, marks: Mapping[TopicPartition, Bookmark]) -> dict[TopicPartition, Match]:
    """Those whose log ends before the bookmark, or has nothing any more."""
    first, after_last = (
        offsets_of(ask, marks, _ASK_MILLISECONDS) for ask in (client.beginning_offsets, client.end_offsets)
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
    ask: Any, partitions: Iterable[TopicPartition], milliseconds: int
) -> dict[TopicPartition, int]:
    """What kafka-python's `beginning_offsets` or `end_offsets` answers, whose error for a topic that is gone is a KeyError. Raises KafkaError."""
    try:
        return dict(ask(list(partitions), timeout_ms=milliseconds))
    except KeyError as error:
        raise UnknownTopicOrPartitionError(f"{error.args[0]} is not there just now") from None


def stored_record(message: Any) -> StoredRecord:
    """Make a record of a message of kafka-python, with its place in the log."""
    record = Record(
        _text(message.key), message.value or b"", {name: _text(value) for name, value in message.headers}
    )
    return StoredRecord(
        record, Partition(message.topic, message.partition), message.offset, message.timestamp / 1000
    )


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")
