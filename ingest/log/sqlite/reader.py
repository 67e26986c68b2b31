"""The embedded log from outside its groups: its records, its backlog, and whether it takes records."""

import heapq
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from ingest.errors import LogUnavailable
from ingest.files import explain_unwritable
from ingest.log import Backlog, Partition, Start, StoredRecord
from ingest.log.sqlite.file import LogFile, unavailable
from ingest.log.sqlite.records import next_offsets, read_records
from ingest.log.sqlite.users import FilesReplaced

Result = TypeVar("Result")

_FETCH_RECORDS = 100  # of each topic
_FETCH_BYTES = 1024 * 1024

_FIRST_SINCE = "SELECT offset FROM records WHERE topic = ? AND appended_at >= ? ORDER BY offset LIMIT 1"
_FIRST_FROM = "SELECT MIN(offset) FROM records WHERE topic = ? AND offset >= ?"
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
_REPLACING_SECONDS = 5.0  # for which a reader waits for those who save a -wal that is gone
_LOOK_SECONDS = 0.05


class SqliteReader:
    """Reads while others append, consume and delete. Records deleted meanwhile are left out."""

    def __init__(self, path: Path, topics: Sequence[str], since: Start) -> None:
        """Begin with the first record of each topic at or after `since`, or with the first of all.

        Raises LogUnavailable.
        """
        self._path = path
        if not path.exists():
            raise LogUnavailable(
                f"there is no log yet: {path} is made by the first process that appends to it"
            )
        self._oldest: list[float] = []
        self._firsts: dict[str, float | None] = {}
        self._spans: dict[str, range] = {}
        with unavailable(path):
            self._file = _retried(lambda: LogFile(path, reads_only=True))
            try:
                _retried(lambda: self._find_spans(topics, since))
            except BaseException:
                self._file.close()
                raise

    def _find_spans(self, topics: Sequence[str], since: Start) -> None:
        with self._file.use() as connection:

            def value(sql: str, *values: object) -> float | None:
                row = connection.execute(sql, values).fetchone()
                return row[0] if row else None

            oldest = (
                value("SELECT appended_at FROM records WHERE topic = ? ORDER BY offset LIMIT 1", topic)
                for topic in topics
            )
            self._oldest = [appended_at for appended_at in oldest if appended_at is not None]
            self._firsts = {
                topic: value("SELECT MIN(offset) FROM records WHERE topic = ?", topic) for topic in topics
            }
            self._spans = {}
            for topic in topics:
                if isinstance(since, datetime):
                    first = value(_FIRST_SINCE, topic, since.timestamp())
                else:
                    first = value(_FIRST_FROM, topic, since.get(0, 0) if since else 0)
                after_last = value("SELECT next_offset FROM topics WHERE topic = ?", topic)
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
        self._file.close()

    def _records_of(self, topic: str, span: range) -> Iterator[StoredRecord]:
        while span:
            with unavailable(self._path):
                records = _retried(partial(self._fetch, topic, span))
            yield from records
            span = range(records[-1].offset + 1 if records else span.stop, span.stop)

    def _fetch(self, topic: str, span: range) -> list[StoredRecord]:
        with self._file.use() as connection:
            return read_records(connection, topic, span, _FETCH_RECORDS, _FETCH_BYTES)


def _retried(read: Callable[[], Result]) -> Result:
    """Call `read` again for some seconds while it raises FilesReplaced."""
    deadline = time.monotonic() + _REPLACING_SECONDS
    while True:
        try:
            return read()
        except FilesReplaced:
            if time.monotonic() > deadline:
                raise
        time.sleep(_LOOK_SECONDS)


def _read_once(path: Path, query: Callable[[sqlite3.Connection], Result]) -> Result:
    """Open the log for one query. Raises LogUnavailable."""

    def read() -> Result:
        with closing(LogFile(path, reads_only=True)) as file, file.use() as connection:
            return query(connection)

    with unavailable(path):
        return _retried(read)


def backlog(path: Path, group: str, topics: Sequence[str] | None = None) -> list[Backlog]:
    """Return the position of a group in these topics, or in all, without joining it.

    The list is empty while there is no log.

    Raises LogUnavailable.
    """
    if not path.exists():
        return []

    def query(connection: sqlite3.Connection) -> list[Backlog]:
        written = next_offsets(connection)
        sql = "SELECT topic, next_offset FROM commits WHERE consumer_group = ?"
        committed = dict(connection.execute(sql, (group,)).fetchall())
        waiting_since = {}
        for topic in written:
            # The oldest time of several records: the first may have been appended by a clock that was ahead.
            (oldest,) = connection.execute(_APPENDED_AT, (topic, committed.get(topic, 0))).fetchone()
            waiting_since[topic] = None if oldest is None else datetime.fromtimestamp(oldest, UTC)
        return [
            Backlog(
                Partition(topic), written.get(topic, 0), committed.get(topic, 0), waiting_since.get(topic)
            )
            for topic in (written if topics is None else topics)
        ]

    return _read_once(path, query)


def extent(path: Path) -> tuple[float | None, int]:
    """Return when the oldest record was appended, as Unix time or None, and the bytes in use.

    Raises LogUnavailable.
    """

    def query(connection: sqlite3.Connection) -> tuple[float | None, int]:
        oldest = connection.execute(_OLDEST).fetchone()
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return oldest[0] if oldest else None, (pages - free) * size

    return _read_once(path, query)


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
