"""The consumer of the embedded log."""

import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import structlog

from ingest.clock import CLOCK_SKEW
from ingest.errors import CommitFailed, LogHeld
from ingest.locks import exclusive
from ingest.log import MAX_POLL_BYTES, Backlog, Partition, PositionChange, Record, StoredRecord
from ingest.log.bookmarks import Bookmark, Bookmarks
from ingest.log.sqlite.file import LogFile, unavailable
from ingest.log.sqlite.records import insert_records, next_offsets, read_records

log = structlog.get_logger()

_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.02, 0.16  # doubled while nothing comes
_GROUP_WAIT_SECONDS = 10.0
_PRUNE_EVERY_SECONDS = 300.0
_PRUNED_AT_ONCE = 5000  # records of a topic, for a tenth of a second in which nobody else can append
_PAGES_AT_ONCE = 2000  # 8 MB, for which writers wait

_NO_END = sys.maxsize  # the largest offset that SQLite has
_NEXT = "SELECT next_offset FROM topics WHERE topic = ?"
# The first offset at or after another one; the next one to be appended if there is no such record.
_FIRST = """
SELECT COALESCE(
  (SELECT MIN(offset) FROM records WHERE topic = ?1 AND offset >= ?2),
  (SELECT next_offset FROM topics WHERE topic = ?1),
  ?2
)
"""

# Deletes up to the last old record before the first young one, and looks no farther. A record appended after
# ?5 was appended by a clock that was ahead: it does not count as young, and its neighbours decide how old it
# is.
_PRUNE = """
WITH young (offset) AS (
  SELECT MIN(?2, COALESCE((
    SELECT offset FROM records
    WHERE topic = ?1 AND offset < ?2 AND appended_at >= ?3 AND appended_at <= ?5
    ORDER BY offset LIMIT 1
  ), ?2))
)
DELETE FROM records WHERE topic = ?1
AND offset <= (
  SELECT offset FROM records
  WHERE topic = ?1 AND offset < (SELECT offset FROM young) AND appended_at < ?3
  ORDER BY offset DESC LIMIT 1
)
AND offset < (SELECT MIN(offset) FROM records WHERE topic = ?1) + ?4
"""
_NEWEST = "SELECT appended_at FROM records ORDER BY rowid DESC LIMIT 1"


def group_lock(path: Path, group: str) -> Path:
    """Return the file that the consumer of a group locks: one, also where several links lead to the log."""
    main = path.resolve()
    return main.with_name(f"{main.name}.{group}.lock")


class SqliteConsumer:
    """The only consumer of its group. Another one waits, and fails if this one does not leave."""

    def __init__(  # noqa: PLR0913 - what a consumer is made of
        self,
        path: Path,
        group: str,
        topics: Sequence[str],
        retention: timedelta,
        patience: float = _GROUP_WAIT_SECONDS,
        *,
        feed: str = "",
    ) -> None:
        """Join the group, and wait `patience` seconds for another consumer to leave.

        Changes are appended to the topic `feed`. Raises LogHeld, LogUnavailable.
        """
        self._path, self._group, self._topics, self._retention = path, group, list(topics), retention
        self._feed = feed
        with unavailable(path):
            self._file = LogFile(path)

        def busy(_holder: str) -> LogHeld:
            return LogHeld(
                f"another consumer of group {group!r} reads {path}; the embedded log takes one at a time:"
                " stop that one, or go to Kafka to run several"
            )

        try:
            self._lock = exclusive(group_lock(path, group), patience, busy, private=True)
        except BaseException:
            self._file.close()
            raise
        self._prune_due = time.monotonic() + _PRUNE_EVERY_SECONDS
        self._next: dict[str, int] = {}
        # The number of the opening of the file in which these offsets were taken; any use may open it anew.
        self._next_of = 0
        self._committed: dict[str, int] = {}  # as in the file, unless that was replaced
        self._written: dict[str, int] = {}  # the next offsets to be written at the last poll
        self._bookmarks: dict[str, Bookmarks] = {}
        # Topic, offset and time of the last record of each poll that is not committed yet.
        self._ends: list[tuple[str, int, float]] = []
        self._changes: list[PositionChange] = []
        self._restored = 0  # how often the content of the file showed that it was replaced
        self.rewind()

    def poll(self, limit: int, timeout: float, max_bytes: int = MAX_POLL_BYTES) -> list[StoredRecord]:
        deadline, pause = time.monotonic() + timeout, _POLL_SECONDS
        while True:
            with unavailable(self._path):
                records = self._read(limit, max_bytes)
            if records or (remaining := deadline - time.monotonic()) <= 0:
                return records
            time.sleep(min(remaining, pause))
            pause = min(2 * pause, _LONGEST_POLL_SECONDS)

    def commit(self, records: Sequence[StoredRecord], load: str = "", changes: Sequence[Record] = ()) -> None:
        newest = {
            stored.partition.topic: stored for stored in sorted(records, key=lambda stored: stored.offset)
        }
        bookmarks = {
            topic: self._bookmarks.get(topic, Bookmarks()).with_newest(Bookmark.of(stored, load), "")
            for topic, stored in newest.items()
        }
        with unavailable(self._path), self._file.transaction() as connection:
            # An older copy that replaced the file lacks commits, or has other records where these were
            # polled.
            if (
                self._file.opened != self._next_of
                or self._committed_in(connection) != self._committed
                or self._topics_cut(connection)
            ):
                self._next_of = 0
                raise CommitFailed(
                    f"{self._path} is no longer the file that these records were read from: it is read again"
                    " from what was committed"
                )
            if changes:
                insert_records(connection, self._feed, changes)
            self._write(
                connection, {topic: (stored.offset + 1, bookmarks[topic]) for topic, stored in newest.items()}
            )
        self._ends = [end for end in self._ends if end[1] >= self._committed.get(end[0], 0)]
        if time.monotonic() >= self._prune_due and not self.prune(
            self._log_time() - self._retention.total_seconds()
        ):
            self._prune_due = time.monotonic() + _PRUNE_EVERY_SECONDS

    def bookmarks(self) -> Mapping[Partition, Bookmarks]:
        return {Partition(topic): marks for topic, marks in self._bookmarks.items()}

    def read_again(self, after: Mapping[Partition, Bookmark | None]) -> Mapping[Partition, int]:
        missing: dict[Partition, int] = {}
        with unavailable(self._path), self._file.transaction() as connection:
            for partition, mark in after.items():
                topic, offset = partition.topic, mark.offset + 1 if mark else 0
                first = _scalar(connection, _FIRST, topic, offset)
                self._write(
                    connection, {topic: (first, self._bookmarks.get(topic, Bookmarks()).again_from(mark))}
                )
                missing[partition] = first - offset
        self.rewind()
        return {partition: count for partition, count in missing.items() if count}

    def changes(self) -> list[PositionChange]:
        changes, self._changes = self._changes, []
        return changes

    def rewind(self) -> None:
        self._next_of = 0  # if this fails, the next poll goes back, so that no record is skipped
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
        """Delete some records that were appended before this Unix time and that every group has committed.

        The feed is read without a group, so its records only need to be old. Returns whether there are more.
        """
        with unavailable(self._path), self._file.transaction() as connection:
            committed_by_all = connection.execute(
                "SELECT topic, MIN(next_offset) FROM commits GROUP BY topic"
                " UNION ALL SELECT topic, next_offset FROM topics WHERE topic = ?",
                [self._feed],
            ).fetchall()
            latest = max(before, time.time() + CLOCK_SKEW.total_seconds())
            deleted = [
                connection.execute(_PRUNE, (topic, committed, before, _PRUNED_AT_ONCE, latest)).rowcount
                for topic, committed in committed_by_all
            ]
        return _PRUNED_AT_ONCE in deleted

    def _log_time(self) -> float:
        """Return the Unix time by which records age, which is not later than that of the newest record.

        A clock that is ahead would otherwise empty the log.
        """
        now = time.time()
        with unavailable(self._path), self._file.use() as connection:
            row = connection.execute(_NEWEST).fetchone()
        newest = float(row[0]) if row else now
        if newest - now > CLOCK_SKEW.total_seconds():
            log.warning("log.record_of_the_future", path=str(self._path), seconds=round(newest - now))
        return min(now, newest)

    def shrink(self) -> bool:
        """Give some pages of deleted records back to the file system, and return whether there are more."""
        with unavailable(self._path), self._file.transaction() as connection:
            connection.execute(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})").fetchall()
            return bool(_scalar(connection, "PRAGMA freelist_count"))

    def close(self) -> None:
        self._file.close()
        self._lock.release()

    def _read(self, limit: int, max_bytes: int) -> list[StoredRecord]:
        """Return a fair share of every topic, in order of offset."""
        records: list[StoredRecord] = []
        size = 0
        with self._file.use() as connection:
            if self._file.opened != self._next_of:
                self._start_from_committed(connection)
            elif self._committed_in(connection) != self._committed:
                self._restored += 1
                self._start_from_committed(connection)
            self._written = next_offsets(connection)
            self._topics.append(self._topics.pop(0))  # so that a small limit starves none
            for index, topic in enumerate(self._topics):
                if len(records) >= limit or size >= max_bytes:
                    break
                topics_left = len(self._topics) - index
                share = max(1, (limit - len(records)) // topics_left)
                share_bytes = (max_bytes - size) // topics_left
                offsets = range(self._next.get(topic, 0), _NO_END)
                if topic_records := read_records(connection, topic, offsets, share, share_bytes):
                    last = topic_records[-1]
                    self._next[topic] = last.offset + 1
                    self._ends.append((topic, last.offset, last.timestamp))
                    size += sum(stored.record.size for stored in topic_records)
                    records += topic_records
        return records

    def _topics_cut(self, connection: sqlite3.Connection) -> set[str]:
        """Return the topics that lack the last record of a poll."""
        sql = "SELECT 1 FROM records WHERE topic = ? AND offset = ? AND appended_at = ?"
        return {end[0] for end in self._ends if not connection.execute(sql, end).fetchone()}

    def _start_from_committed(self, connection: sqlite3.Connection) -> None:
        """Read from what is committed, and note topics that have less than before, as in an older copy."""
        before, self._committed = self._committed, self._committed_in(connection)
        written = next_offsets(connection)
        changed = self._topics_cut(connection)
        changed.update(topic for topic, offset in self._written.items() if written.get(topic, 0) < offset)
        changed.update(topic for topic, offset in before.items() if self._committed.get(topic, 0) < offset)
        sql = "SELECT topic, marks FROM bookmarks WHERE consumer_group = ?"
        self._bookmarks = {
            topic: Bookmarks.decode(marks)
            for topic, marks in connection.execute(sql, (self._group,)).fetchall()
        }
        self._next = {topic: self._committed.get(topic, 0) for topic in self._topics}
        self._ends.clear()
        self._written = written
        self._next_of = self._file.opened
        self._changes += [
            PositionChange(Partition(topic), before.get(topic, 0), self._committed.get(topic, 0))
            for topic in self._topics
            if topic in changed
        ]

    def _committed_in(self, connection: sqlite3.Connection) -> dict[str, int]:
        sql = "SELECT topic, next_offset FROM commits WHERE consumer_group = ?"
        return dict(connection.execute(sql, (self._group,)).fetchall())

    def _write(self, connection: sqlite3.Connection, positions: Mapping[str, tuple[int, Bookmarks]]) -> None:
        """Write commits.

        When the transaction fails, the file differs from what is known here, and is read again.
        """
        for topic, (offset, bookmarks) in positions.items():
            connection.execute(
                "INSERT OR REPLACE INTO commits VALUES (?, ?, ?)", (self._group, topic, offset)
            )
            connection.execute(
                "INSERT OR REPLACE INTO bookmarks VALUES (?, ?, ?)", (self._group, topic, bookmarks.encode())
            )
        self._committed |= {topic: offset for topic, (offset, _) in positions.items()}
        self._bookmarks |= {topic: bookmarks for topic, (_, bookmarks) in positions.items()}


def _scalar(connection: sqlite3.Connection, sql: str, *values: object) -> int:
    row = connection.execute(sql, values).fetchone()
    return int(row[0]) if row else 0
