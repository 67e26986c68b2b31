"""Reads from the embedded log, and tells where a group stands."""

import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from ingest.clock import CLOCK_SKEW
from ingest.errors import CommitFailed, LogHeld
from ingest.locks import exclusive
from ingest.log import MOST_BYTES, Backlog, Change, Partition, StoredRecord
from ingest.log.bookmarks import Bookmark, Bookmarks
from ingest.log.sqlite.file import LogFile, read_only, read_records, unavailable

log = structlog.get_logger()

_LOOK_AGAIN_SECONDS = 0.02
_GROUP_WAIT_SECONDS = 10.0
_PRUNE_EVERY_SECONDS = 300.0
_PRUNED_AT_ONCE = 5000  # of a topic: a tenth of a second, in which nobody else can append
_PAGES_AT_ONCE = 2000  # 8 MB; writers wait meanwhile

_NO_END = sys.maxsize  # the largest offset that SQLite has
_NEXT = "SELECT next_offset FROM topics WHERE topic = ?"
# Of those at or after an offset; the next one to be appended where there is none.
_FIRST = """
SELECT COALESCE((SELECT MIN(offset) FROM records WHERE topic = ?1 AND offset >= ?2), (SELECT next_offset FROM topics WHERE topic = ?1), ?2)
"""

# Up to the last record that is old enough, before the first that is young: looks no farther than that. What was appended after ?5 was so by a
# clock that was ahead. It is no young record, and its neighbours decide how old it is.
_PRUNE = """
WITH young (offset) AS (
  SELECT MIN(?2, COALESCE((
    SELECT offset FROM records WHERE topic = ?1 AND offset < ?2 AND appended_at >= ?3 AND appended_at <= ?5 ORDER BY offset LIMIT 1
  ), ?2))
)
DELETE FROM records WHERE topic = ?1
AND offset <= (
  SELECT offset FROM records WHERE topic = ?1 AND offset < (SELECT offset FROM young) AND appended_at < ?3 ORDER BY offset DESC LIMIT 1
)
AND offset < (SELECT MIN(offset) FROM records WHERE topic = ?1) + ?4
"""
_NEWEST = "SELECT appended_at FROM records ORDER BY rowid DESC LIMIT 1"
_LOOKED_AT = 1000  # records, for the time of the first of them


def group_lock(path: Path, group: str) -> Path:
    """The file that the one consumer of a group locks."""
    return path.with_name(f"{path.name}.{group}.lock")


class SqliteConsumer:
    """The one consumer of its group; a second one waits a little for the first to leave, then says so."""

    def __init__(
        self,
        path: Path,
        group: str,
        topics: Sequence[str],
        retention: timedelta,
        patience: float = _GROUP_WAIT_SECONDS,
    ) -> None:
        """`patience`: how many seconds to wait for another one of the group to leave."""
        self._path, self._group, self._topics, self._retention = path, group, list(topics), retention
        with unavailable(path):
            self._file = LogFile(path)
        try:
            self._lock = exclusive(group_lock(path, group), patience, self._held_error, private=True)
        except BaseException:
            self._file.close()
            raise
        self._prune_due = time.monotonic() + _PRUNE_EVERY_SECONDS
        self._next: dict[str, int] = {}
        self._next_of = 0  # which opening of the file these are offsets of; whoever uses it may be the one to find another there
        self._committed: dict[str, int] = {}  # as the file has it, unless another was put over it
        self._written: dict[str, int] = {}  # the next offsets to be written, as of the last poll
        self._kept: dict[str, Bookmarks] = {}
        self._ends: list[
            tuple[str, int, float]
        ] = []  # topic, offset and time of the last record of each poll, not committed yet
        self._changes: list[Change] = []
        self._restored = 0  # how often the file turned out to be another one by what is in it
        self.rewind()

    def poll(self, limit: int, timeout: float, most_bytes: int = MOST_BYTES) -> list[StoredRecord]:
        deadline = time.monotonic() + timeout
        while True:
            with unavailable(self._path):
                found = self._read(limit, most_bytes)
            if found or (left := deadline - time.monotonic()) <= 0:
                return found
            time.sleep(min(left, _LOOK_AGAIN_SECONDS))

    def commit(self, records: Sequence[StoredRecord], load: str = "") -> None:
        done = {
            record.partition.topic: record for record in sorted(records, key=lambda stored: stored.offset)
        }
        kept = {
            topic: self._kept.get(topic, Bookmarks()).with_newest(Bookmark.of(record, load), "")
            for topic, record in done.items()
        }
        with unavailable(self._path), self._file.transaction() as connection:
            if self._file.opened != self._next_of or not self._is_same(connection):
                self._next_of = 0
                raise CommitFailed(
                    f"{self._path} is no longer the file that these records were read from: it is read again from what was committed"
                )
            self._write(
                connection, {topic: (record.offset + 1, kept[topic]) for topic, record in done.items()}
            )
        self._ends = [end for end in self._ends if end[1] >= self._committed.get(end[0], 0)]
        if time.monotonic() >= self._prune_due and not self.prune(
            self._log_time() - self._retention.total_seconds()
        ):
            self._prune_due = time.monotonic() + _PRUNE_EVERY_SECONDS

    def bookmarks(self) -> Mapping[Partition, Bookmarks]:
        return {Partition(topic): kept for topic, kept in self._kept.items() if kept.marks}

    def read_again(self, after: Mapping[Partition, Bookmark | None]) -> Mapping[Partition, int]:
        gone: dict[Partition, int] = {}
        with unavailable(self._path), self._file.transaction() as connection:
            for partition, mark in after.items():
                topic, wanted = partition.topic, mark.offset + 1 if mark else 0
                first = _scalar(connection, _FIRST, topic, wanted)
                self._write(connection, {topic: (first, self._kept.get(topic, Bookmarks()).back_to(mark))})
                gone[partition] = first - wanted
        self.rewind()
        return {partition: count for partition, count in gone.items() if count}

    def changes(self) -> list[Change]:
        changes, self._changes = self._changes, []
        return changes

    def rewind(self) -> None:
        self._next_of = 0  # should this fail, whoever polls next has to come back first, or what was polled would be passed over
        with unavailable(self._path), self._file.use() as connection:
            self._start_from_committed(connection)

    def generation(self) -> int:
        return self._file.opened + self._restored

    def backlog(self) -> list[Backlog]:
        with unavailable(self._path), self._file.use() as connection:
            return [
                Backlog(
                    Partition(topic),
                    _scalar(connection, _NEXT, topic),
                    self._committed_in(connection).get(topic, 0),
                )
                for topic in self._topics
            ]

    def prune(self, before: float) -> bool:
        """Delete what was appended before this Unix time, as far as every group has committed it, some at a time; whether there is more."""
        with unavailable(self._path), self._file.transaction() as connection:
            done = connection.execute("SELECT topic, MIN(next_offset) FROM commits GROUP BY topic").fetchall()
            believed = max(before, time.time() + CLOCK_SKEW.total_seconds())
            deleted = [
                connection.execute(_PRUNE, (topic, committed, before, _PRUNED_AT_ONCE, believed)).rowcount
                for topic, committed in done
            ]
        return _PRUNED_AT_ONCE in deleted

    def _log_time(self) -> float:
        """Return the Unix time by which records age: this machine's, but none beyond the newest record's, or a clock that is ahead would empty the log."""
        now = time.time()
        with unavailable(self._path), self._file.use() as connection:
            row = connection.execute(_NEWEST).fetchone()
        newest = float(row[0]) if row else now
        if newest - now > CLOCK_SKEW.total_seconds():
            log.warning("log.record_of_the_future", path=str(self._path), seconds=round(newest - now))
        return min(now, newest)

    def shrink(self) -> bool:
        """Gives some of what deleted records took back to the file system; whether there is more."""
        with unavailable(self._path), self._file.transaction() as connection:
            connection.execute(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})").fetchall()
            return bool(_scalar(connection, "PRAGMA freelist_count"))

    def close(self) -> None:
        self._file.close()
        self._lock.release()

    def _held_error(self, _holder: str) -> LogHeld:
        return LogHeld(
            f"another consumer of group {self._group!r} reads {self._path}; the embedded log takes one at a time:"
            " stop that one, or go to Kafka to run several"
        )

    def _read(self, limit: int, most_bytes: int) -> list[StoredRecord]:
        """A fair share of every topic, in order of offset."""
        found: list[StoredRecord] = []
        size = 0
        with self._file.use() as connection:
            if self._file.opened != self._next_of:
                self._start_from_committed(connection)
            elif self._committed_in(connection) != self._committed:
                self._restored += 1
                self._start_from_committed(connection)
            self._written = _next_offsets(connection)
            self._topics.append(self._topics.pop(0))  # so that a small limit starves none
            for place, topic in enumerate(self._topics):
                if len(found) >= limit or size >= most_bytes:
                    break
                left = len(self._topics) - place
                some = self._some(
                    connection, topic, max(1, (limit - len(found)) // left), (most_bytes - size) // left
                )
                size += sum(stored.record.size for stored in some)
                found += some
        return found

    def _some(
        self, connection: sqlite3.Connection, topic: str, share: int, most_bytes: int
    ) -> list[StoredRecord]:
        """The next of a topic, at least one where there is any."""
        some = read_records(connection, topic, range(self._next.get(topic, 0), _NO_END), share, most_bytes)
        if some:
            self._next[topic] = some[-1].offset + 1
            self._ends.append((topic, some[-1].offset, some[-1].timestamp))
        return some

    def _is_same(self, connection: sqlite3.Connection) -> bool:
        """Whether the file still has what was committed and polled: an older copy that was put over it has other records there, or none."""
        return self._committed_in(connection) == self._committed and not self._gone(connection)

    def _gone(self, connection: sqlite3.Connection) -> set[str]:
        """Return the topics whose last records of a poll are not there any more."""
        sql = "SELECT 1 FROM records WHERE topic = ? AND offset = ? AND appended_at = ?"
        return {end[0] for end in self._ends if not connection.execute(sql, end).fetchone()}

    def _start_from_committed(self, connection: sqlite3.Connection) -> None:
        """Note the topics that have less than before: the file is an older copy, or another one."""
        before, self._committed = self._committed, self._committed_in(connection)
        written = _next_offsets(connection)
        changed = self._gone(connection)
        changed.update(topic for topic, offset in self._written.items() if written.get(topic, 0) < offset)
        changed.update(topic for topic, offset in before.items() if self._committed.get(topic, 0) < offset)
        sql = "SELECT topic, marks FROM bookmarks WHERE consumer_group = ?"
        self._kept = {
            topic: Bookmarks.decode(marks)
            for topic, marks in connection.execute(sql, (self._group,)).fetchall()
        }
        self._next = {topic: self._committed.get(topic, 0) for topic in self._topics}
        self._ends.clear()
        self._written = written
        self._next_of = self._file.opened
        self._changes += [
            Change(Partition(topic), before.get(topic, 0), self._committed.get(topic, 0))
            for topic in self._topics
            if topic in changed
        ]

    def _committed_in(self, connection: sqlite3.Connection) -> dict[str, int]:
        sql = "SELECT topic, next_offset FROM commits WHERE consumer_group = ?"
        return dict(connection.execute(sql, (self._group,)).fetchall())

    def _write(self, connection: sqlite3.Connection, positions: Mapping[str, tuple[int, Bookmarks]]) -> None:
        """What is committed, in a transaction that may still fail: then the file differs from what is known here, and is read again."""
        for topic, (offset, kept) in positions.items():
            connection.execute(
                "INSERT OR REPLACE INTO commits VALUES (?, ?, ?)", (self._group, topic, offset)
            )
            connection.execute(
                "INSERT OR REPLACE INTO bookmarks VALUES (?, ?, ?)", (self._group, topic, kept.encode())
            )
        self._committed |= {topic: offset for topic, (offset, _) in positions.items()}
        self._kept |= {topic: kept for topic, (_, kept) in positions.items()}


def _next_offsets(connection: sqlite3.Connection) -> dict[str, int]:
    """Return by topic the next offset to be written."""
    return dict(connection.execute("SELECT topic, next_offset FROM topics").fetchall())


def _scalar(connection: sqlite3.Connection, sql: str, *values: object) -> int:
    row = connection.execute(sql, values).fetchone()
    return int(row[0]) if row else 0


def backlog(path: Path, group: str, topics: Sequence[str] | None = None) -> list[Backlog]:
    """Where a group stands in these topics, or in all there are, without joining it; an empty list while there is no log."""
    if not path.exists():
        return []
    with unavailable(path), closing(read_only(path)) as connection:
        written = _next_offsets(connection)
        read = dict(
            connection.execute(
                "SELECT topic, next_offset FROM commits WHERE consumer_group = ?", (group,)
            ).fetchall()
        )
        since = {topic: _appended_at(connection, topic, read.get(topic, 0)) for topic in written}
    return [
        Backlog(Partition(topic), written.get(topic, 0), read.get(topic, 0), since.get(topic))
        for topic in (written if topics is None else topics)
    ]


def _appended_at(connection: sqlite3.Connection, topic: str, offset: int) -> datetime | None:
    """When the first record at or after the offset was appended: not after those behind it, whatever the clock of then said."""
    sql = "SELECT MIN(appended_at) FROM (SELECT appended_at FROM records WHERE topic = ? AND offset >= ? ORDER BY offset LIMIT ?)"
    (first,) = connection.execute(sql, (topic, offset, _LOOKED_AT)).fetchone()
    return None if first is None else datetime.fromtimestamp(first, UTC)


def extent(path: Path) -> tuple[float | None, int]:
    """When the oldest record was appended (Unix time; None without records), and the bytes in use. Raises LogUnavailable."""
    with unavailable(path), closing(read_only(path)) as connection:
        sql = (
            "SELECT (SELECT appended_at FROM records WHERE records.topic = topics.topic ORDER BY offset LIMIT 1) AS first"
            " FROM topics WHERE first IS NOT NULL ORDER BY first LIMIT 1"
        )
        oldest = connection.execute(sql).fetchone()
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
    return oldest[0] if oldest else None, (pages - free) * size
