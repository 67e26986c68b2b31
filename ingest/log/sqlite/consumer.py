"""Reads from the embedded log, and tells where a group stands."""

import json
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from ingest.errors import CommitFailed, LogHeld
from ingest.log import MOST_BYTES, Backlog, Partition, Record, StoredRecord
from ingest.log.sqlite.file import LogFile, read_only, transaction, unavailable

_LOOK_AGAIN_SECONDS = 0.02
_GROUP_WAIT_SECONDS = 10.0
_PRUNE_EVERY_SECONDS = 300.0
_PRUNED_AT_ONCE = 5000  # of a topic: a tenth of a second, in which nobody else can append
_PAGES_AT_ONCE = 2000  # 8 MB; writers wait meanwhile

_NEXT = "SELECT offset, key, value, headers FROM records WHERE topic = ? AND offset >= ? ORDER BY offset LIMIT ?"

# Looks no farther than the first to be kept.
_PRUNE = """
DELETE FROM records WHERE topic = ?1
AND offset < MIN(?2, COALESCE((SELECT offset FROM records WHERE topic = ?1 AND offset < ?2 AND appended_at >= ?3 ORDER BY offset LIMIT 1), ?2))
AND offset < (SELECT MIN(offset) FROM records WHERE topic = ?1) + ?4
"""


class SqliteConsumer:
    """The one consumer of its group; a second one waits a little for the first to leave, then says so."""

    def __init__(self, path: Path, group: str, topics: Sequence[str], retention: timedelta, patience: float = _GROUP_WAIT_SECONDS) -> None:
        """`patience`: how many seconds to wait for another one of the group to leave."""
        self._path, self._group, self._topics, self._retention = path, group, list(topics), retention
        with unavailable(path):
            self._file = LogFile(path)
        self._lock = FileLock(f"{path}.{group}.lock", mode=0o600)
        self._enter_group(patience)
        self._prune_due = time.monotonic() + _PRUNE_EVERY_SECONDS
        self._next: dict[str, int] = {}
        self._next_of = 0  # which opening of the file these are offsets of; whoever uses it may be the one to find another there
        self.rewind()

    def poll(self, limit: int, timeout: float, most_bytes: int = MOST_BYTES) -> list[StoredRecord]:
        deadline = time.monotonic() + timeout
        while True:
            with unavailable(self._path):
                found = self._read(limit, most_bytes)
            if found or (left := deadline - time.monotonic()) <= 0:
                return found
            time.sleep(min(left, _LOOK_AGAIN_SECONDS))

    def commit(self, records: Sequence[StoredRecord]) -> None:
        done = {record.partition.topic: record.offset + 1 for record in sorted(records, key=lambda stored: stored.offset)}
        with unavailable(self._path), transaction(connection := self._file.connection):
            if self._file.opened != self._next_of:
                raise CommitFailed(
                    f"{self._path} is another file now, or could not be read again: it is read again from what was committed"
                )
            connection.executemany(
                "INSERT INTO commits VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset",
                [(self._group, topic, offset) for topic, offset in done.items()],
            )
        if time.monotonic() >= self._prune_due and not self.prune(time.time() - self._retention.total_seconds()):
            self._prune_due = time.monotonic() + _PRUNE_EVERY_SECONDS

    def rewind(self) -> None:
        self._next_of = 0  # should this fail, whoever polls next has to come back first, or what was polled would be passed over
        with unavailable(self._path):
            _, opened = self._file.connection, self._file.opened
            self._next = {entry.partition.topic: entry.committed for entry in self._backlog()}
            self._next_of = opened

    def generation(self) -> int:
        return self._file.opened

    def backlog(self) -> list[Backlog]:
        with unavailable(self._path):
            return self._backlog()

    def prune(self, before: float) -> bool:
        """Delete what was appended before this Unix time, as far as every group has committed it, some at a time; whether there is more."""
        with unavailable(self._path), transaction(connection := self._file.connection):
            done = connection.execute("SELECT topic, MIN(next_offset) FROM commits GROUP BY topic").fetchall()
            deleted = [connection.execute(_PRUNE, (topic, committed, before, _PRUNED_AT_ONCE)).rowcount for topic, committed in done]
        return _PRUNED_AT_ONCE in deleted

    def shrink(self) -> bool:
        """Gives some of what deleted records took back to the file system; whether there is more."""
        with unavailable(self._path):
            self._file.connection.execute(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})").fetchall()
            return bool(self._scalar("PRAGMA freelist_count"))

    def close(self) -> None:
        self._file.close()
        self._lock.release()

    def _enter_group(self, patience: float) -> None:
        try:
            self._lock.acquire(timeout=patience)
        except Timeout:
            self._file.close()
            raise LogHeld(
                f"another consumer of group {self._group!r} reads {self._path}; the embedded log takes one at a time:"
                " stop that one, or go to Kafka to run several"
            ) from None

    def _read(self, limit: int, most_bytes: int) -> list[StoredRecord]:
        """A fair share of every topic, in order of offset."""
        found: list[StoredRecord] = []
        size = 0
        connection = self._file.connection
        if self._file.opened != self._next_of:
            self.rewind()
        self._topics.append(self._topics.pop(0))  # so that a small limit starves none
        for place, topic in enumerate(self._topics):
            if len(found) >= limit or size >= most_bytes:
                break
            left = len(self._topics) - place
            share, enough = max(1, (limit - len(found)) // left), size + (most_bytes - size) // left
            with closing(connection.execute(_NEXT, (topic, self._next.get(topic, 0), share))) as rows:
                for offset, key, value, headers in rows:
                    found.append(StoredRecord(Record(key, value, json.loads(headers)), Partition(topic), offset))
                    size += found[-1].record.size
                    if size >= enough:
                        break
        self._next.update({stored.partition.topic: stored.offset + 1 for stored in found})
        return found

    def _backlog(self) -> list[Backlog]:
        return [
            Backlog(Partition(topic), self._scalar("SELECT next_offset FROM topics WHERE topic = ?", topic), self._committed(topic))
            for topic in self._topics
        ]

    def _committed(self, topic: str) -> int:
        return self._scalar("SELECT next_offset FROM commits WHERE consumer_group = ? AND topic = ?", self._group, topic)

    def _scalar(self, sql: str, *values: str) -> int:
        row = self._file.connection.execute(sql, values).fetchone()
        return int(row[0]) if row else 0


def backlog(path: Path, group: str, topics: Sequence[str] | None = None) -> list[Backlog]:
    """Where a group stands in these topics, or in all there are, without joining it; an empty list while there is no log."""
    if not path.exists():
        return []
    with unavailable(path), closing(read_only(path)) as connection:
        written = dict(connection.execute("SELECT topic, next_offset FROM topics").fetchall())
        read = dict(connection.execute("SELECT topic, next_offset FROM commits WHERE consumer_group = ?", (group,)).fetchall())
        since = {topic: _appended_at(connection, topic, read.get(topic, 0)) for topic in written}
    return [
        Backlog(Partition(topic), written.get(topic, 0), read.get(topic, 0), since.get(topic))
        for topic in (written if topics is None else topics)
    ]


def _appended_at(connection: sqlite3.Connection, topic: str, offset: int) -> datetime | None:
    """When the first record at or after the offset was appended."""
    sql = "SELECT appended_at FROM records WHERE topic = ? AND offset >= ? ORDER BY offset LIMIT 1"
    row = connection.execute(sql, (topic, offset)).fetchone()
    return datetime.fromtimestamp(row[0], UTC) if row else None


def extent(path: Path) -> tuple[float | None, int]:
    """When the oldest record was appended (Unix time; None without records), and the bytes in use. Raises LogUnavailable."""
    with unavailable(path), closing(read_only(path)) as connection:
        sql = (
            "SELECT (SELECT appended_at FROM records WHERE records.topic = topics.topic ORDER BY offset LIMIT 1) AS first"
            " FROM topics WHERE first IS NOT NULL ORDER BY first LIMIT 1"
        )
        oldest = connection.execute(sql).fetchone()
        pages, free, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size"))
    return oldest[0] if oldest else None, (pages - free) * size
