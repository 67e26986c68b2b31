"""A reader of the embedded log, from some instant on and without a group."""

import heapq
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ingest.errors import LogUnavailable
from ingest.log import Partition, StoredRecord
from ingest.log.sqlite.file import read_only, unavailable
from ingest.log.sqlite.queries import read_records

_FETCH_RECORDS = 100  # of each topic
_FETCH_BYTES = 1024 * 1024


class SqliteReader:
    """Reads while others append, consume and delete. Records deleted meanwhile are left out."""

    def __init__(self, path: Path, topics: Sequence[str], since: datetime | None) -> None:
        """Begin with the first record of each topic that was appended at `since` or later.

        Without `since`, begin with the first record.

        Raises LogUnavailable.
        """
        self._path = path
        if not path.exists():
            raise LogUnavailable(
                f"there is no log yet: {path} is made by the first process that appends to it"
            )
        with unavailable(path):
            self._connection = read_only(path)
            oldest = (
                self._value("SELECT appended_at FROM records WHERE topic = ? ORDER BY offset LIMIT 1", topic)
                for topic in topics
            )
            self._oldest = [appended_at for appended_at in oldest if appended_at is not None]
            self._firsts = {
                topic: self._value("SELECT MIN(offset) FROM records WHERE topic = ?", topic)
                for topic in topics
            }
            self._spans = {topic: self._span(topic, since.timestamp() if since else 0.0) for topic in topics}

    def total(self) -> int:
        return sum(map(len, self._spans.values()))

    def begins_at(self) -> datetime | None:
        return datetime.fromtimestamp(min(self._oldest), UTC) if self._oldest else None

    def first_offset(self, partition: Partition) -> int:
        return int(self._firsts.get(partition.topic) or 0)

    def records(self) -> Iterator[StoredRecord]:
        return heapq.merge(
            *(self._records_of(topic, span) for topic, span in self._spans.items()),
            key=lambda stored: stored.timestamp,
        )

    def close(self) -> None:
        self._connection.close()

    def _records_of(self, topic: str, span: range) -> Iterator[StoredRecord]:
        while span:
            with unavailable(self._path):
                self._connection.check()
                records = read_records(self._connection, topic, span, _FETCH_RECORDS, _FETCH_BYTES)
            yield from records
            span = range(records[-1].offset + 1 if records else span.stop, span.stop)

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
