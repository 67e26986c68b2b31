"""The embedded log from outside its groups: its records, its backlog, and whether it takes records."""

import heapq
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from ingest.errors import LogUnavailable
from ingest.files import explain_unwritable
from ingest.log import Backlog, Partition, StoredRecord
from ingest.log.sqlite.file import LogFile, read_only, unavailable
from ingest.log.sqlite.records import next_offsets, read_records

_FETCH_RECORDS = 100  # of each topic
_FETCH_BYTES = 1024 * 1024

_FIRST_SINCE = "SELECT offset FROM records WHERE topic = ? AND appended_at >= ? ORDER BY offset LIMIT 1"
_APPENDED_AT = """
SELECT MIN(appended_at) FROM (
  SELECT appended_at FROM records WHERE topic = ? AND offset >= ? ORDER BY offset LIMIT 1000
)
"""
_OLDEST = """
SELECT (SELECT appended_at FROM records WHERE records.topic = topics.topic ORDER BY offset LIMIT 1) AS first
FROM topics WHERE first IS NOT NULL ORDER BY first LIMIT 1
"""
_BUSY_SECONDS = 2.0  # for which the probe waits for the transactions of others


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
            self._spans: dict[str, range] = {}
            for topic in topics:
                first = self._value(_FIRST_SINCE, topic, since.timestamp() if since else 0.0)
                after_last = self._value("SELECT next_offset FROM topics WHERE topic = ?", topic)
                if first is not None and after_last is not None:
                    self._spans[topic] = range(int(first), int(after_last))

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

    def _value(self, sql: str, *values: object) -> float | None:
        row = self._connection.execute(sql, values).fetchone()
        return row[0] if row else None


def backlog(path: Path, group: str, topics: Sequence[str] | None = None) -> list[Backlog]:
    """Return the position of a group in these topics, or in all, without joining it.

    The list is empty while there is no log.

    Raises LogUnavailable.
    """
    if not path.exists():
        return []
    with unavailable(path), closing(read_only(path)) as connection:
        written = next_offsets(connection)
        sql = "SELECT topic, next_offset FROM commits WHERE consumer_group = ?"
        committed = dict(connection.execute(sql, (group,)).fetchall())
        waiting_since = {}
        for topic in written:
            # The oldest time of several records: the first may have been appended by a clock that was ahead.
            (oldest,) = connection.execute(_APPENDED_AT, (topic, committed.get(topic, 0))).fetchone()
            waiting_since[topic] = None if oldest is None else datetime.fromtimestamp(oldest, UTC)
    return [
        Backlog(Partition(topic), written.get(topic, 0), committed.get(topic, 0), waiting_since.get(topic))
        for topic in (written if topics is None else topics)
    ]


def extent(path: Path) -> tuple[float | None, int]:
    """Return when the oldest record was appended, as Unix time or None, and the bytes in use.

    Raises LogUnavailable.
    """
    with unavailable(path), closing(read_only(path)) as connection:
        oldest = connection.execute(_OLDEST).fetchone()
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
    return oldest[0] if oldest else None, (pages - free) * size


def try_append(path: Path) -> None:
    """Commit an empty transaction, as durably as an append; without a file, only test its folder.

    Raises LogUnavailable when that fails.
    """
    if why := explain_unwritable(path.resolve().parent):  # the journal of a linked file is beside that file
        raise LogUnavailable(f"the log {path} takes no records: {why}")
    if not path.exists() or not path.stat().st_size:  # nobody has made its tables yet
        return
    with unavailable(path), closing(LogFile(path, wait=_BUSY_SECONDS)) as file, file.transaction():
        pass  # a transaction raises the version of the file, which writes a page
