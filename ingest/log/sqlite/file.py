"""The file: its tables, opened in WAL mode and durable at commit, and found again when another takes its place."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakSet

from filelock import FileLock

from ingest.errors import LogUnavailable
from ingest.log import Partition, Record, StoredRecord
from ingest.log.sqlite.overwritten import RawFiles, beside, raise_version

_SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (topic TEXT PRIMARY KEY, next_offset INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS records (
  topic TEXT NOT NULL, offset INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, headers TEXT NOT NULL,
  appended_at REAL NOT NULL, PRIMARY KEY (topic, offset)
);
CREATE TABLE IF NOT EXISTS commits (consumer_group TEXT, topic TEXT, next_offset INTEGER NOT NULL, PRIMARY KEY (consumer_group, topic));
CREATE TABLE IF NOT EXISTS bookmarks (consumer_group TEXT, topic TEXT, marks TEXT NOT NULL, PRIMARY KEY (consumer_group, topic));
"""

_RECORDS = "SELECT offset, key, value, headers, appended_at FROM records WHERE topic = ? AND offset >= ? AND offset < ? ORDER BY offset LIMIT ?"

_BUSY_SECONDS = 10.0
_RESTORE = "; was it restored beside a -wal of before? Stop what uses it, delete the -wal and -shm, and put a whole copy in its place"

_OVERWRITTEN = (
    "another copy was written over it while its -wal of before stays: wait until the copy is whole, then delete its -wal and -shm;"
    " what uses it goes on with the copy"
)

_Inode = tuple[int, int] | None


def _inode(path: Path) -> _Inode:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@dataclass(frozen=True, slots=True)
class _Files:
    """What is at the path: the main file, and what SQLite keeps beside it. A log is all three: https://www.sqlite.org/walformat.html"""

    main: _Inode = None
    wal: _Inode = None
    shm: _Inode = None

    @classmethod
    def at(cls, path: Path) -> "_Files":
        return cls(_inode(path), _inode(beside(path, "wal")), _inode(beside(path, "shm")))


@dataclass(slots=True)
class _Process:
    """All that have one path open in this process: SQLite has them share the -shm that the first of them opened."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    files: "WeakSet[LogFile]" = field(default_factory=WeakSet)
    readers: int = 0  # connections of those who only look
    raw: list[RawFiles] = field(default_factory=list)  # the newest last

    @classmethod
    def of(cls, path: Path) -> "_Process":
        return _PROCESSES.setdefault(path.absolute(), cls())

    def open_raw(self, path: Path) -> RawFiles:
        """Return the files that are at the path now. Raises OSError."""
        now = _Files.at(path)
        if not self.raw or _Files(*self.raw[-1].inodes()) != now:
            self.raw.append(RawFiles.at(path))
        return self.raw[-1]

    def close_raw(self) -> None:
        """Close them, unless SQLite's locks would be lost by that."""
        if not self.readers and not any(file.is_open for file in self.files):
            while self.raw:
                self.raw.pop().close()


_PROCESSES: dict[Path, _Process] = {}


class LogFile:
    """The log's file, opened anew when another one has taken its place: what was deleted, moved or restored must not go on being written to, unseen.

    `opened` counts how often. `limit` bounds its size in bytes: what would make it larger fails as on a full disk. `wait`: seconds for others' transactions.
    """

    def __init__(self, path: Path, limit: int | None = None, wait: float = _BUSY_SECONDS) -> None:
        self._path, self._limit, self._wait = path, limit, wait
        self._process = _Process.of(path)
        self._connection: sqlite3.Connection | None = None
        self._opened_as = _Files()
        self._raw = RawFiles(None, None, None)
        self.opened = 0
        try:
            with self.use():
                self._process.files.add(self)
        except BaseException:
            self.close()
            raise

    @property
    def is_open(self) -> bool:
        """Whether it has a connection."""
        return self._connection is not None

    @contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """A connection to the file that is there now; nobody else in this process uses the file meanwhile. Raises sqlite3.Error, OSError."""
        with self._process.lock:
            self.let_go()
            connection = self._connection or self._open()
            if self._raw.is_overwritten(connection):
                connection = self._open_again()
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, in the file that is there when it ends: a commit to one that is gone fails. Raises sqlite3.Error, OSError."""
        with self.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                raise_version(connection)
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            if self._is_replaced():
                raise sqlite3.OperationalError(
                    "it was moved, deleted or restored, or its -wal or -shm was, while it was written to"
                )
            if self._raw.is_overwritten(connection):
                raise sqlite3.OperationalError(_OVERWRITTEN)

    def let_go(self) -> None:
        """Closes a file that is no longer there, and saves what only the -wal has; whoever uses it next opens what is there then."""
        with self._process.lock:
            if self._connection is not None and self._is_replaced():
                self._close_all()

    def reopen(self) -> None:
        """What is open shows what the file no longer has."""
        with self._process.lock:
            self._close_all()

    def close(self) -> None:
        with self._process.lock:
            self._close(_Files.at(self._path))
            self._process.files.discard(self)
            self._process.close_raw()

    def _is_replaced(self) -> bool:
        return _Files.at(self._path) != self._opened_as

    def _close_all(self) -> None:
        """All of this process together, or the next one to open it would get the -shm that is gone."""
        now = _Files.at(self._path)
        for each in (self, *self._process.files):
            each._close(now)  # noqa: SLF001  another one of this class
        if now.main not in {None, self._opened_as.main}:
            self._remove_foreign()
        self._process.close_raw()

    def _open_again(self) -> sqlite3.Connection:
        """Without what SQLite keeps of the file in memory: the -wal may fit a copy that is not older than itself. Raises sqlite3.Error, OSError."""
        if self._raw.is_whole():
            self._close_all()
            connection = self._open()
            if not self._raw.is_overwritten(connection):
                return connection
        raise sqlite3.OperationalError(_OVERWRITTEN)

    def _close(self, now: _Files) -> None:
        """Puts into the main file what is in the -wal, which may be deleted, and is of no use to another main file."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(sqlite3.Error, OSError):
            if self._is_overwritten(connection):
                connection.interrupt()  # or closing it would put the -wal into the copy
            elif now != self._opened_as and (
                now.wal in {None, self._opened_as.wal} or not beside(self._path, "wal").stat().st_size
            ):
                connection.execute(
                    "PRAGMA wal_checkpoint(PASSIVE)"
                ).fetchall()  # with another one that is in use, somebody goes on already
        connection.close()

    def _is_overwritten(self, connection: sqlite3.Connection) -> bool:
        """Also where SQLite cannot read it any more."""
        try:
            return self._raw.is_overwritten(connection)
        except (sqlite3.Error, OSError):
            return True

    def _remove_foreign(self) -> None:
        """A -wal of the file that was here before would be applied to the one that is here now, and spoil it."""
        left = _Files.at(self._path)
        if left.wal is not None and left.wal == self._opened_as.wal:
            beside(self._path, "wal").unlink(missing_ok=True)
            beside(self._path, "shm").unlink(missing_ok=True)

    def _open(self) -> sqlite3.Connection:
        connection = _connect(self._path, self._wait)
        if self._limit:
            (page,) = connection.execute("PRAGMA page_size").fetchone()
            connection.execute(f"PRAGMA max_page_count={max(1, self._limit // page)}")
        self._connection, self._opened_as = connection, _Files.at(self._path)
        self._raw = self._process.open_raw(self._path)
        self.opened += 1
        return connection


@contextmanager
def unavailable(path: Path) -> Iterator[None]:
    """SQLite's errors, and the file system's, as LogUnavailable."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        remedy = _RESTORE if "malformed" in str(error) else ""
        raise LogUnavailable(f"the log {path} failed: {error}{remedy}") from error


class ReadConnection(sqlite3.Connection):
    """A connection of somebody who only looks; a part of its process' count until it is closed."""

    _process: _Process | None = None
    _raw = RawFiles(None, None, None)

    def enter(self, path: Path) -> None:
        """Have SQLite open the files, and look at them. Raises sqlite3.Error, OSError."""
        self.execute("SELECT 1 FROM sqlite_master").fetchone()
        process = _Process.of(path)
        with process.lock:
            process.readers += 1
            self._process, self._raw = process, process.open_raw(path)
        self.check()

    def check(self) -> None:
        """Raise sqlite3.OperationalError where the file was written over."""
        if self._raw.is_overwritten(self):
            raise sqlite3.OperationalError(_OVERWRITTEN)

    def close(self) -> None:
        """Close it, and the files where nobody else in this process has them open."""
        super().close()
        process, self._process = self._process, None
        if process is not None:
            with process.lock:
                process.readers -= 1
                process.close_raw()


def read_only(path: Path) -> ReadConnection:
    """For those who only look. Raises sqlite3.Error where there is no file or it was written over, OSError."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS, factory=ReadConnection
    )
    try:
        connection.execute("PRAGMA query_only=ON")
        connection.enter(path)
    except BaseException:
        connection.close()
        raise
    return connection


def read_records(
    connection: sqlite3.Connection, topic: str, span: range, limit: int, most_bytes: int
) -> list[StoredRecord]:
    """Return up to `limit` records of a span of offsets: those that fit into `most_bytes`, and one more that does not. Raises sqlite3.Error."""
    found: list[StoredRecord] = []
    size = 0
    with closing(connection.execute(_RECORDS, (topic, span.start, span.stop, limit))) as rows:
        for offset, key, value, headers, appended_at in rows:
            found.append(
                StoredRecord(Record(key, value, json.loads(headers)), Partition(topic), offset, appended_at)
            )
            size += found[-1].record.size
            if size >= most_bytes:
                break
    return found


def _connect(path: Path, wait: float) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False)
    try:
        with FileLock(
            f"{path}.lock", timeout=wait, poll_interval=0.01, mode=0o600
        ):  # going to WAL does not wait, it fails
            if not connection.execute("PRAGMA page_count").fetchone()[0]:
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # must come before the first table
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)
        connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.interrupt()  # or closing it would put the -wal into a file that it may not belong to
        connection.close()
        raise
    return connection
