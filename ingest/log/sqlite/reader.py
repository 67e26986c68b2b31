"""Reads the embedded log from some instant on, for no group."""

import heapq
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from ingest.errors import LogUnavailable
from ingest.log import Appended, Partition, Record, StoredRecord
from ingest.log.sqlite.file import read_only, unavailable

_AT_A_TIME = 100  # of each topic
_BYTES_AT_A_TIME = 1024 * 1024
_NEXT = (
    "SELECT offset, key, value, headers, appended_at FROM records WHERE topic = ? AND offset >= ? AND offset < ? ORDER BY offset LIMIT ?"
)


class SqliteReader:
    """Looks on while others append, consume and delete: what is deleted before its turn is left out."""

    def __init__(self, path: Path, topics: Sequence[str], since: datetime | None) -> None:
        """From the first record of each topic that was appended then or later; without `since`, from the first there is. Raises LogUnavailable."""
        self._path = path
        if not path.exists():
            raise LogUnavailable(f"there is no log yet: {path} is made by the first process that appends to it")
        with unavailable(path):
            self._connection = read_only(path)
            self._oldest = [at for topic in topics if (at := self._first(topic)) is not None]
            self._firsts = {topic: self._value("SELECT MIN(offset) FROM records WHERE topic = ?", topic) for topic in topics}
            self._spans = {topic: self._span(topic, since.timestamp() if since else 0.0) for topic in topics}

    def total(self) -> int:
        return sum(map(len, self._spans.values()))

    def begins(self) -> datetime | None:
        return _instant(min(self._oldest)) if self._oldest else None

    def first(self, partition: Partition) -> int:
        return int(self._firsts.get(partition.topic) or 0)

    def records(self) -> Iterator[Appended]:
        return heapq.merge(*(self._of(topic, span) for topic, span in self._spans.items()), key=lambda one: one.at)

    def close(self) -> None:
        self._connection.close()

    def _of(self, topic: str, span: range) -> Iterator[Appended]:
        while span:
            with unavailable(self._path):
                found = self._some(topic, span)
            yield from found
            span = range(found[-1].stored.offset + 1 if found else span.stop, span.stop)

    def _some(self, topic: str, span: range) -> list[Appended]:
        """The first of a span, at least one where it has any."""
        found: list[Appended] = []
        size = 0
        with closing(self._connection.execute(_NEXT, (topic, span.start, span.stop, _AT_A_TIME))) as rows:
            for offset, key, value, headers, at in rows:
                record = Record(key, value, json.loads(headers))
                found.append(Appended(_instant(at), StoredRecord(record, Partition(topic), offset)))
                size += record.size
                if size >= _BYTES_AT_A_TIME:
                    break
        return found

    def _first(self, topic: str) -> float | None:
        return self._value("SELECT appended_at FROM records WHERE topic = ? ORDER BY offset LIMIT 1", topic)

    def _span(self, topic: str, since: float) -> range:
        first = self._value("SELECT offset FROM records WHERE topic = ? AND appended_at >= ? ORDER BY offset LIMIT 1", topic, since)
        after_last = self._value("SELECT next_offset FROM topics WHERE topic = ?", topic)
        return range(0) if first is None or after_last is None else range(int(first), int(after_last))

    def _value(self, sql: str, *values: object) -> float | None:
        row = self._connection.execute(sql, values).fetchone()
        return row[0] if row else None


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
