"""The SQLite file of the log: its tables, durable commits, and detection of another file in its place."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakSet

from ingest.errors import LogUnavailable
from ingest.locks import exclusive
from ingest.log.sqlite.overwritten import RawFiles, beside
from ingest.log.sqlite.users import Inodes, Users

_SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (topic TEXT PRIMARY KEY, next_offset INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS records (
  topic TEXT NOT NULL, offset INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, headers TEXT NOT NULL,
  appended_at REAL NOT NULL, PRIMARY KEY (topic, offset)
);
CREATE TABLE IF NOT EXISTS commits (
  consumer_group TEXT, topic TEXT, next_offset INTEGER NOT NULL, PRIMARY KEY (consumer_group, topic)
);
CREATE TABLE IF NOT EXISTS bookmarks (
  consumer_group TEXT, topic TEXT, marks TEXT NOT NULL, PRIMARY KEY (consumer_group, topic)
);
"""

_BUSY_SECONDS = 10.0
_RESTORE_HINT = (
    "; was it restored beside an old -wal? Stop what uses it, delete the -wal and -shm, and put a "
    "complete copy in its place"
)

_OVERWRITTEN = (
    "another copy was written over it beside the old -wal: wait until the copy is complete, then delete "
    "its -wal and -shm; the processes that use it continue with the copy"
)

_WAL_HELD = (
    "its -wal is gone, and what is in it cannot be saved while somebody reads: it is tried again; does a "
    "process that uses the log hang?"
)

_TEMPORARY = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
}


@dataclass(slots=True)
class _SharedPath:
    """The state of a path that all who have it open in this process share, as they share SQLite's -shm."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    files: "WeakSet[LogFile]" = field(default_factory=WeakSet)
    readers: int = 0  # connections that only read
    raw: list[RawFiles] = field(default_factory=list)  # the newest last

    @classmethod
    def of(cls, path: Path) -> "_SharedPath":
        """Return what is shared for a path."""
        return _SHARED_PATHS.setdefault(path.absolute(), cls())

    def open_raw(self, path: Path) -> RawFiles:
        """Open the files that are at the path now, and return them. Raises OSError."""
        now = Inodes.at(path)
        if not self.raw or Inodes(*self.raw[-1].inodes()) != now:
            self.raw.append(RawFiles.at(path))
        return self.raw[-1]

    def close_raw(self) -> None:
        """Close the raw files, unless SQLite would lose its locks by that."""
        if not self.readers and not any(file.is_open for file in self.files):
            while self.raw:
                self.raw.pop().close()


_SHARED_PATHS: dict[Path, _SharedPath] = {}


class LogFile:
    """The file of the log, which is opened anew when another one has replaced it.

    Otherwise a file that was deleted, moved or restored would be written to without anybody noticing.
    `opened` counts how often the file was opened. `limit` bounds its size in bytes: what would make it larger
    fails as on a full disk. `wait` is the number of seconds to wait for the transactions of others.
    """

    def __init__(self, path: Path, limit: int | None = None, wait: float = _BUSY_SECONDS) -> None:
        self._path, self._limit, self._wait = path, limit, wait
        self._shared = _SharedPath.of(path)
        self._connection: sqlite3.Connection | None = None
        self._opened_as = Inodes()
        self._raw = RawFiles(None, None, None)
        self._users: Users | None = None
        self.opened = 0
        try:
            with self.use():
                self._shared.files.add(self)
        except BaseException:
            self.close()
            raise

    @property
    def is_open(self) -> bool:
        """Return whether the file has a connection."""
        return self._connection is not None

    @contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """Give a connection to the file that is there now, which nobody else in this process uses meanwhile.

        Raises sqlite3.Error, OSError.
        """
        with self._shared.lock:
            for file in (self, *(self._shared.files if self._connection is None else ())):
                file.close_if_replaced()
            connection = self._connection or self._open()
            if self._raw.is_overwritten(connection):
                connection = self._open_again()
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give a connection in a transaction, whose commit fails when the file was replaced meanwhile.

        Raises sqlite3.Error, OSError.
        """
        with self.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                self._raw.raise_version(connection)
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            if self._is_replaced():
                raise sqlite3.OperationalError(
                    "it, its -wal or its -shm was moved, deleted or restored while it was written to"
                )
            if self._raw.is_overwritten(connection):
                raise sqlite3.OperationalError(_OVERWRITTEN)

    def close_if_replaced(self) -> None:
        """Close a file that was replaced, and save what only its -wal has."""
        with self._shared.lock:
            if self._connection is not None and self._is_replaced():
                self._close_all()

    def reopen(self) -> None:
        """Close the file, so that the next use opens it anew and shows what is there now."""
        with self._shared.lock:
            self._close_all()

    def close(self) -> None:
        """Close the file."""
        with self._shared.lock:
            with suppress(sqlite3.OperationalError):
                self._close(Inodes.at(self._path))
            self._connection = None
            self._leave()
            self._shared.files.discard(self)
            self._shared.close_raw()

    def _is_replaced(self) -> bool:
        return Inodes.at(self._path) != self._opened_as

    def _close_all(self) -> None:
        """Close the file for the whole process, or a new connection would get the -shm that is gone."""
        now = Inodes.at(self._path)
        for file in (self, *self._shared.files):
            file._close(now)  # noqa: SLF001 - another object of this class
        # SQLite would apply the -wal of the file that was replaced to the new one.
        wal = Inodes.at(self._path).wal
        if now.main not in {None, self._opened_as.main} and wal is not None and wal == self._opened_as.wal:
            beside(self._path, "wal").unlink(missing_ok=True)
            beside(self._path, "shm").unlink(missing_ok=True)
        self._shared.close_raw()

    def _open_again(self) -> sqlite3.Connection:
        """Open the file again, without what SQLite has of it in memory.

        A copy that is not older than its -wal may fit it.

        Raises sqlite3.Error, OSError.
        """
        if self._raw.is_whole():
            self._close_all()
            connection = self._open()
            if not self._raw.is_overwritten(connection):
                return connection
        raise sqlite3.OperationalError(_OVERWRITTEN)

    def _close(self, now: Inodes) -> None:
        """Close the connection, and copy the -wal into the main file if it is going to be lost.

        Raises sqlite3.OperationalError when it cannot be copied yet.
        """
        connection = self._connection
        if connection is None:
            return
        try:
            is_overwritten = self._raw.is_overwritten(connection)
        except (sqlite3.Error, OSError):  # SQLite cannot read it any more
            is_overwritten = True
        if is_overwritten:
            connection.interrupt()  # or closing would copy the -wal into the other file
        elif self._is_wal_lost(now):
            _save_wal(connection)
        self._connection = None
        self._leave()  # before the last one who closes the log deletes its -wal
        connection.close()

    def _leave(self) -> None:
        users, self._users = self._users, None
        if users is not None:
            users.leave()

    def _is_wal_lost(self, now: Inodes) -> bool:
        """Return whether the -wal is gone or useless, and no other process goes on with another one."""
        if now == self._opened_as:
            return False
        return now.wal in {None, self._opened_as.wal} or not _size(beside(self._path, "wal"))

    def _open(self) -> sqlite3.Connection:
        def busy(holder: str) -> TimeoutError:
            return TimeoutError(f"another process holds its .lock file{holder}")

        path, wait = self._path, self._wait
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        connection = sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False)
        try:
            # To change to WAL does not wait for others, but fails.
            with exclusive(path.with_name(f"{path.name}.lock"), wait, busy, private=True):
                self._users = Users(path)
                if not self.opened:
                    self._users.check()
                if not connection.execute("PRAGMA page_count").fetchone()[0]:
                    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # must come before the first table
                connection.execute("PRAGMA journal_mode=WAL")
                connection.executescript(_SCHEMA)
                self._users.name_files()
            connection.execute("PRAGMA synchronous=FULL")
        except BaseException:
            connection.interrupt()  # or closing would copy the -wal into a file that it may not belong to
            self._leave()
            connection.close()
            raise
        if self._limit:
            (page,) = connection.execute("PRAGMA page_size").fetchone()
            connection.execute(f"PRAGMA max_page_count={max(1, self._limit // page)}")
        self._connection, self._opened_as = connection, Inodes.at(self._path)
        self._raw = self._shared.open_raw(self._path)
        self.opened += 1
        return connection


def _save_wal(connection: sqlite3.Connection) -> None:
    """Copy all of a -wal that is going to be lost into the main file.

    A checkpoint that leaves pages out, as PASSIVE does for who reads, leaves a file that nobody can read.

    Raises sqlite3.OperationalError when it can be copied later: somebody reads, or the disk is full.
    """
    try:
        [(is_busy, *_)] = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
    except sqlite3.Error as error:
        if error.sqlite_errorcode in _TEMPORARY:
            raise
        return
    if is_busy:
        raise sqlite3.OperationalError(_WAL_HELD)


def _size(path: Path) -> int:
    """Return the size of a file, 0 where it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@contextmanager
def unavailable(path: Path) -> Iterator[None]:
    """Raise LogUnavailable for the errors of SQLite and of the file system."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        remedy = _RESTORE_HINT if "malformed" in str(error) else ""
        raise LogUnavailable(f"the log {path} failed: {error}{remedy}") from error


class ReadConnection(sqlite3.Connection):
    """A connection that only reads, and that its process counts until it is closed."""

    _shared: _SharedPath | None = None
    _raw = RawFiles(None, None, None)

    def enter(self, path: Path) -> None:
        """Have SQLite open the files, and check them. Raises sqlite3.Error, OSError."""
        self.execute("SELECT 1 FROM sqlite_master").fetchone()
        shared = _SharedPath.of(path)
        with shared.lock:
            shared.readers += 1
            self._shared, self._raw = shared, shared.open_raw(path)
        self.check()

    def check(self) -> None:
        """Raise sqlite3.OperationalError when the file was written over."""
        if self._raw.is_overwritten(self):
            raise sqlite3.OperationalError(_OVERWRITTEN)

    def close(self) -> None:
        """Close the connection, and the raw files if nobody else in this process has them open."""
        super().close()
        shared, self._shared = self._shared, None
        if shared is not None:
            with shared.lock:
                shared.readers -= 1
                shared.close_raw()


def read_only(path: Path) -> ReadConnection:
    """Open the file for reading only.

    Raises OSError, and sqlite3.Error when there is no file or it was written over.
    """
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
