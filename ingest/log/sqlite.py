"""The embedded log: one SQLite file in WAL mode, durable at commit, shared by several processes.

Every topic has one partition, number 0. The next offset is kept apart from the rows, so that retention never reuses one.
"""

import json
import queue
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from ingest.errors import CommitFailed, LogUnavailable
from ingest.log import Backlog, Partition, Record, StoredRecord

_SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (topic TEXT PRIMARY KEY, next_offset INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS records (
  topic TEXT NOT NULL, offset INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, headers TEXT NOT NULL,
  appended_at REAL NOT NULL, PRIMARY KEY (topic, offset)
);
CREATE TABLE IF NOT EXISTS commits (consumer_group TEXT, topic TEXT, next_offset INTEGER NOT NULL, PRIMARY KEY (consumer_group, topic));
"""

_BUSY_SECONDS = 10.0
_LOOK_AGAIN_SECONDS = 0.02
_GROUP_WAIT_SECONDS = 10.0
_PRUNE_EVERY_SECONDS = 300.0
_MOST_IN_ONE_TRANSACTION = 1000

Append = tuple[str, Sequence[Record], "Future[None]"]


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        with FileLock(f"{path}.lock", timeout=_BUSY_SECONDS, poll_interval=0.01, mode=0o600):  # going to WAL does not wait, it fails
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)
        connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


class _File:
    """The log's file, opened anew when another one has taken its place: what was deleted or moved must not go on being written to, unseen.

    `opened` counts how often.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.opened = 0
        self._open()

    @property
    def connection(self) -> sqlite3.Connection:
        """To the file that is there now. Raises sqlite3.Error, OSError."""
        if self.replaced():
            self._connection.close()
            self._open()
        return self._connection

    def replaced(self) -> bool:
        """Whether the path leads to another file than the one that is open."""
        return _identity(self._path) != self._opened_as

    def close(self) -> None:
        self._connection.close()

    def _open(self) -> None:
        self._connection = _connect(self._path)
        self._opened_as = _identity(self._path)
        self.opened += 1


@contextmanager
def _unavailable(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise LogUnavailable(f"the log {path} failed: {error}") from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


class SqliteProducer:
    """One writer thread that commits everything waiting in one transaction: as durable as one at a time, far faster."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: queue.SimpleQueue[Append | None] = queue.SimpleQueue()
        self._closed, self._closing = False, threading.Lock()
        with _unavailable(path):
            self._file = _File(path)
        self._writer = threading.Thread(target=self._write, name="log-writer", daemon=True)
        self._writer.start()

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # a caller that gives up waiting cannot cancel what may already be written
        with self._closing:
            if self._closed:
                future.set_exception(LogUnavailable(f"the log {self._path} was closed before this append; open it again"))
            else:
                self._waiting.put((topic, records, future))
        return future

    def close(self) -> None:
        with self._closing:
            if not self._closed:
                self._waiting.put(None)
            self._closed = True
        self._writer.join()
        self._file.close()

    def _write(self) -> None:
        while (first := self._waiting.get()) is not None:
            appends = [first, *self._others()]
            try:
                with _unavailable(self._path), _transaction(connection := self._file.connection):
                    for topic, records, _ in appends:
                        _insert(connection, topic, records)
            except Exception as error:  # noqa: BLE001  whatever it is, callers must hear of it and this thread must live
                failure = error if isinstance(error, LogUnavailable) else LogUnavailable(f"the log {self._path} failed: {error!r}")
                for _, _, future in appends:
                    future.set_exception(failure)
            else:
                for _, _, future in appends:
                    future.set_result(None)

    def _others(self) -> Iterator[Append]:
        for _ in range(_MOST_IN_ONE_TRANSACTION):
            try:
                append = self._waiting.get_nowait()
            except queue.Empty:
                return
            if append is None:
                self._waiting.put(None)  # seen too early: leave it for the loop
                return
            yield append


def _insert(connection: sqlite3.Connection, topic: str, records: Sequence[Record]) -> None:
    last: int = connection.execute(
        "INSERT INTO topics VALUES (?, ?) ON CONFLICT DO UPDATE SET next_offset = next_offset + excluded.next_offset RETURNING next_offset",
        (topic, len(records)),
    ).fetchone()[0]
    now = time.time()
    connection.executemany(
        "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)",
        [
            (topic, offset, record.key, record.value, json.dumps(dict(record.headers)), now)
            for offset, record in enumerate(records, start=last - len(records))
        ],
    )


class SqliteConsumer:
    """The one consumer of its group; a second one waits a little for the first to leave, then says so."""

    def __init__(self, path: Path, group: str, topics: Sequence[str], retention: timedelta) -> None:
        self._path, self._group, self._topics, self._retention = path, group, list(topics), retention
        with _unavailable(path):
            self._file = _File(path)
        self._lock = FileLock(f"{path}.{group}.lock", mode=0o600)
        self._enter_group()
        self._pruned_at = time.monotonic()
        self._next: dict[str, int] = {}
        self.rewind()

    def poll(self, limit: int, timeout: float) -> list[StoredRecord]:
        deadline = time.monotonic() + timeout
        while True:
            with _unavailable(self._path):
                found = self._read(limit)
            if found or (left := deadline - time.monotonic()) <= 0:
                return found
            time.sleep(min(left, _LOOK_AGAIN_SECONDS))

    def commit(self, records: Sequence[StoredRecord]) -> None:
        if self._file.replaced():
            raise CommitFailed(f"another file has taken the place of {self._path}: what it holds is read from its own beginning")
        done = {record.partition.topic: record.offset + 1 for record in sorted(records, key=lambda stored: stored.offset)}
        with _unavailable(self._path), _transaction(connection := self._file.connection):
            connection.executemany(
                "INSERT INTO commits VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset",
                [(self._group, topic, offset) for topic, offset in done.items()],
            )
        if time.monotonic() - self._pruned_at > _PRUNE_EVERY_SECONDS:
            self.prune(time.time() - self._retention.total_seconds())

    def rewind(self) -> None:
        with _unavailable(self._path):
            self._next = {entry.partition.topic: entry.committed for entry in self._backlog()}

    def generation(self) -> int:
        return self._file.opened

    def backlog(self) -> list[Backlog]:
        with _unavailable(self._path):
            return self._backlog()

    def prune(self, before: float) -> None:
        """Delete what was appended before this Unix time, as far as every group has committed it."""
        self._pruned_at = time.monotonic()
        with _unavailable(self._path), _transaction(connection := self._file.connection):
            connection.execute(
                "DELETE FROM records WHERE appended_at < ? AND offset <"
                " (SELECT MIN(next_offset) FROM commits WHERE commits.topic = records.topic)",
                (before,),
            )

    def close(self) -> None:
        self._file.close()
        self._lock.release()

    def _enter_group(self) -> None:
        try:
            self._lock.acquire(timeout=_GROUP_WAIT_SECONDS)
        except Timeout:
            self._file.close()
            raise LogUnavailable(
                f"another consumer of group {self._group!r} reads {self._path}; the embedded log takes one at a time:"
                " stop that one, or go to Kafka to run several"
            ) from None

    def _read(self, limit: int) -> list[StoredRecord]:
        """A fair share of every topic, in order of offset."""
        found: list[StoredRecord] = []
        before, connection = self._file.opened, self._file.connection
        if self._file.opened != before:
            self.rewind()
        self._topics.append(self._topics.pop(0))  # so that a small limit starves none
        for place, topic in enumerate(self._topics):
            if len(found) >= limit:
                break
            share = max(1, (limit - len(found)) // (len(self._topics) - place))
            rows = connection.execute(
                "SELECT offset, key, value, headers FROM records WHERE topic = ? AND offset >= ? ORDER BY offset LIMIT ?",
                (topic, self._next.get(topic, 0), share),
            ).fetchall()
            found += [
                StoredRecord(Record(key, value, json.loads(headers)), Partition(topic), offset) for offset, key, value, headers in rows
            ]
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


def backlog(path: Path, group: str, topics: Sequence[str]) -> list[Backlog]:
    """Where a group stands, without joining it; an empty list while there is no log."""
    if not path.exists():
        return []
    with _unavailable(path), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_BUSY_SECONDS)) as connection:
        connection.execute("PRAGMA query_only=ON")
        written = dict(connection.execute("SELECT topic, next_offset FROM topics").fetchall())
        read = dict(connection.execute("SELECT topic, next_offset FROM commits WHERE consumer_group = ?", (group,)).fetchall())
    return [Backlog(Partition(topic), written.get(topic, 0), read.get(topic, 0)) for topic in topics]
