"""Following a topic on Kafka, without a group."""

import time
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from ingest.log import Start, StoredRecord
from ingest.log.kafka.cluster import Cluster
from ingest.log.kafka.comparer import stored_record
from ingest.log.kafka.consumer import partitions_of
from ingest.log.kafka_settings import KafkaSettings

_LOOK_SECONDS = 30.0  # between two looks for new partitions
_LOOK_AGAIN_SECONDS = 1.0  # while there is no topic
_OPTIONS = {
    "group_id": None,
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",  # where it was deleted, or the topic was made anew
    "isolation_level": "read_committed",  # others see nothing of a transaction that is not over
    "max_partition_fetch_bytes": 1024 * 1024,
    "bootstrap_timeout_ms": 10_000,
    "request_timeout_ms": 10_000,
    "metadata_max_age_ms": 60_000,
    "metrics_enabled": False,
}


class KafkaFollower:
    """Reads all partitions of a topic, also of one that is made later."""

    def __init__(self, servers: list[str], settings: KafkaSettings, topic: str, start: Start) -> None:
        """Begin at a time, at offsets, or with what is appended from now on. Raises LogUnavailable."""
        self._cluster, self._topic = Cluster(servers, settings), topic
        self._next: dict[int, int] = {}
        with self._cluster.translated_errors():
            self._consumer = self._cluster.open(KafkaConsumer, **_OPTIONS)
        try:
            with self._cluster.translated_errors():
                self._add_partitions(start)
        except BaseException:
            self.close()
            raise

    def poll(self, limit: int, timeout: float) -> list[StoredRecord]:
        with self._cluster.translated_errors():
            if time.monotonic() >= self._look_due:
                self._add_partitions({})
            if not self._next:
                time.sleep(min(timeout, _LOOK_AGAIN_SECONDS))
                return []
            polled = self._consumer.poll(timeout_ms=int(timeout * 1000), max_records=limit)
        for partition, messages in polled.items():
            self._next[partition.partition] = messages[-1].offset + 1
        return [stored_record(message) for messages in polled.values() for message in messages]

    def position(self) -> Mapping[int, int]:
        return dict(self._next)

    def close(self) -> None:
        with suppress(KafkaError):
            self._consumer.close(autocommit=False)

    def _add_partitions(self, start: Start) -> None:
        """Read partitions that were not known, of which those without a position from their start."""
        with closing(self._cluster.admin()) as admin:
            found = partitions_of(admin, [self._topic])
        new = [partition for partition in found if partition.partition not in self._next]
        self._look_due = time.monotonic() + (_LOOK_SECONDS if found else _LOOK_AGAIN_SECONDS)
        if new:
            offsets = self._offsets(new, start)
            self._next |= {partition.partition: offset for partition, offset in offsets.items()}
            self._consumer.assign(found)
            for partition in found:
                self._consumer.seek(partition, self._next[partition.partition])

    def _offsets(self, partitions: Iterable[TopicPartition], start: Start) -> dict[TopicPartition, int]:
        if isinstance(start, Mapping):
            return {partition: start.get(partition.partition, 0) for partition in partitions}
        ends: dict[TopicPartition, int] = self._consumer.end_offsets(partitions)
        if start is None:
            return ends
        since = int(start.timestamp() * 1000)
        found = self._consumer.offsets_for_times(dict.fromkeys(partitions, since))
        return {
            partition: found[partition].offset if found[partition] else ends[partition] for partition in ends
        }
