"""Reads the embedded log from some instant on, for no group."""

import heapq
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ingest.errors import LogUnavailable
from ingest.log import Partition, StoredRecord
from ingest.log.sqlite.file import read_only, read_records, unavailable

_AT_A_TIME = 100  # of each topic
_BYTES_AT_A_TIME = 1024 * 1024


class SqliteReader:
    """Looks on while others append, consume and delete: what is deleted before its turn is left out."""

    def __init__(self, path: Path, topics: Sequence[str], since: datetime | None) -> None:
        """From the first record of each topic that was appended then or later; without `since`, from the first there is. Raises LogUnavailable."""
        self._path = path
        if not path.exists():
            raise LogUnavailable(
                f"there is no log yet: {path} is made by the first process that appends to it"
            )
        with unavailable(path):
            self._connection = read_only(path)
            self._oldest = [at for topic in topics if (at := self._first(topic)) is not None]
            self._firsts = {
                topic: self._value("SELECT MIN(offset) FROM records WHERE topic = ?", topic)
                for topic in topics
            }
            self._spans = {topic: self._span(topic, since.timestamp() if since else 0.0) for topic in topics}

    def total(self) -> int:
        return sum(map(len, self._spans.values()))

    def begins(self) -> datetime | None:
        return datetime.fromtimestamp(min(self._oldest), UTC) if self._oldest else None

    def first(self, partition: Partition) -> int:
        return int(self._firsts.get(partition.topic) or 0)

    def records(self) -> Iterator[StoredRecord]:
        return heapq.merge(
            *(self._of(topic, span) for topic, span in self._spans.items()),
            key=lambda stored: stored.timestamp,
        )

    def close(self) -> None:
        self._connection.close()

    def _of(self, topic: str, span: range) -> Iterator[StoredRecord]:
        while span:
            with unavailable(self._path):
                self._connection.check()
                found = read_records(self._connection, topic, span, _AT_A_TIME, _BYTES_AT_A_TIME)
            yield from found
            span = range(found[-1].offset + 1 if found else span.stop, span.stop)

    def _first(self, topic: str) -> float | None:
        return self._value("SELECT appended_at FROM records WHERE topic = ? ORDER BY offset LIMIT 1", topic)

    def _span(self, topic: str, since: float) -> range:
        first = self._value(
            "SELECT offset FROM records WHERE topic = ? AND appended_at >= ? ORDER BY offset LIMIT 1",
            topic,
            since,
        )
        after_last = self._value("SELECT next_offset FROM topics WHERE topic = ?", topic)
        return range(0) if first is None or after_last is None else range(int(first), int(after_last))

    def _value(self, sql: str, *values: object) -> float | None:
        row = self._connection.execute(sql, values).fetchone()
        return row[0] if row else None
