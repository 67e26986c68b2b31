"""The SQLite file of the log: its tables, durable commits, and detection of another file in its place."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakSet

from ingest.errors import LogUnavailable
from ingest.locks import HeldLock, exclusive
from ingest.log.sqlite.overwritten import RawFiles, beside
from ingest.log.sqlite.users import FilesReplaced, Inodes, Users

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

_LOOK = "SELECT 1 FROM sqlite_master"  # whose execution opens the files

# Of a new file. Whenever a -wal has a thousand pages, SQLite copies them into the file and syncs both: with
# pages twice as large as its own choice, half as often.
_PAGE_BYTES = 8192

_BUSY_SECONDS = 10.0
_LOOK_SECONDS = 0.0005  # between two looks whether somebody else still writes
_RESTORE_HINT = (
    "; was it restored beside an old -wal? Stop what uses it, delete the -wal and -shm, and put a "
    "complete copy in its place"
)

_REPLACED = "it, its -wal or its -shm was moved, deleted or restored while it was used"

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
    raw: list[RawFiles] = field(default_factory=list)  # the newest last

    @classmethod
    def of(cls, path: Path) -> "_SharedPath":
        """Return what is shared for a path."""
        return _SHARED_PATHS.setdefault(path.resolve(), cls())

    def open_raw(self, path: Path) -> RawFiles:
        """Open the files that are at the path now, and return them. Raises OSError."""
        now = Inodes.at(path)
        if not self.raw or Inodes(*self.raw[-1].inodes()) != now:
            self.raw.append(RawFiles.at(path))
        return self.raw[-1]

    def close_raw(self) -> None:
        """Close the raw files, unless SQLite would lose its locks by that."""
        if not any(file.is_open for file in self.files):
            while self.raw:
                self.raw.pop().close()


_SHARED_PATHS: dict[Path, _SharedPath] = {}


class LogFile:
    """The file of the log, which is opened anew when another one has replaced it.

    Otherwise a file that was deleted, moved or restored would be written to without anybody noticing.
    `opened` counts how often the file was opened. `limit` bounds its size in bytes: what would make it larger
    fails as on a full disk. `wait` is the number of seconds to wait for the transactions of others. One that
    `reads_only` makes no file and no table, and saves nothing.
    """

    def __init__(
        self,
        path: Path,
        limit: int | None = None,
        wait: float = _BUSY_SECONDS,
        *,
        reads_only: bool = False,
    ) -> None:
        """Open the file.

        Raises OSError, FilesReplaced where others have yet to save a -wal that is gone, and sqlite3.Error.
        """
        self._path, self._limit, self._wait, self._reads_only = path, limit, wait, reads_only
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

        Raises sqlite3.Error, OSError, and FilesReplaced when what was read meanwhile does not count.
        """
        with self._shared.lock:
            for file in (self, *(self._shared.files if self._connection is None else ())):
                file.close_if_replaced()
            connection = self._connection or self._open()
            if self._raw.is_overwritten(connection):
                connection = self._open_again()
            try:
                yield connection
            except sqlite3.DatabaseError as error:
                if type(error) is sqlite3.DatabaseError:  # what SQLite says of pages that do not fit together
                    self._check_still_there(connection)
                raise
            self._check_still_there(connection)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give a connection in a transaction, whose commit fails when the file was replaced meanwhile.

        Raises sqlite3.Error, OSError.
        """
        with self.use() as connection:
            self._begin(connection)
            try:
                # Whoever saves a -wal that is gone waits for transactions, but not for those yet to begin.
                self._check_not_replaced()
                self._raw.raise_version(connection)
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

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

    def _check_not_replaced(self) -> None:
        if self._is_replaced():
            raise FilesReplaced(_REPLACED)

    def _check_still_there(self, connection: sqlite3.Connection) -> None:
        """Raise sqlite3.OperationalError when the file was replaced or written over."""
        self._check_not_replaced()
        if self._raw.is_overwritten(connection):
            raise sqlite3.OperationalError(_OVERWRITTEN)

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
        is_lost = self._is_wal_lost(now)
        try:
            is_overwritten = self._raw.is_overwritten(connection)
        except (sqlite3.Error, OSError):  # SQLite cannot read it any more
            is_overwritten, is_lost = True, False
        if is_overwritten:
            connection.interrupt()  # or closing would copy the -wal into the other file
        if is_lost:
            self._part_with_wal(None if is_overwritten else connection)
        self._connection = None
        self._leave()  # before the last one who closes the log deletes its -wal
        connection.close()

    def _leave(self) -> None:
        users, self._users = self._users, None
        if users is not None:
            users.leave()

    def _is_wal_lost(self, now: Inodes) -> bool:
        """Return whether the -wal is gone or useless, and no other process goes on with another one."""
        if self._reads_only or now == self._opened_as:
            return False
        return now.wal in {None, self._opened_as.wal} or not _size(beside(self._path, "wal"))

    def _part_with_wal(self, connection: sqlite3.Connection | None) -> None:
        """Save what a -wal has that is going to be lost, and take away the -shm that belongs to it.

        Who opens the log next makes another -wal, and would look in it for what the -shm says of this one.
        Without a connection, what it has belongs to a file that is not there any more.

        Raises sqlite3.OperationalError when it can be saved later.
        """
        with self._lock():
            if connection is not None:
                _copy_wal(connection)
            if Inodes.at(self._path).shm == self._opened_as.shm:
                beside(self._path, "shm").unlink(missing_ok=True)
            if self._users is not None:
                self._users.forget(self._opened_as)

    def _lock(self) -> HeldLock:
        """Take the lock of those who open the log: to change to WAL does not wait for others, but fails."""

        def busy(holder: str) -> sqlite3.OperationalError:
            return sqlite3.OperationalError(f"another process holds its .lock file{holder}")

        main = self._path.resolve()
        return exclusive(main.with_name(f"{main.name}.lock"), self._wait, busy, private=True)

    def _open(self) -> sqlite3.Connection:
        connection = self._connect()
        try:
            if self._reads_only and not Users.are_known(self._path):
                # A file that is made here might belong to another user than those who are going to use it.
                connection.execute(_LOOK).fetchone()
                self._opened_as = Inodes.at(self._path)
            else:
                self._open_among_users(connection)
            connection.execute("PRAGMA synchronous=FULL")
        except BaseException:
            connection.interrupt()  # or closing would copy the -wal into a file that it may not belong to
            self._leave()
            connection.close()
            raise
        if self._limit:
            (page,) = connection.execute("PRAGMA page_size").fetchone()
            connection.execute(f"PRAGMA max_page_count={max(1, self._limit // page)}")
        self._connection = connection
        self._raw = self._shared.open_raw(self._path)
        self.opened += 1
        return connection

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Begin a transaction as soon as no other connection writes. Raises sqlite3.OperationalError.

        SQLite itself sleeps up to 100 ms between two looks, and meanwhile others that write begin again and
        again.
        """
        deadline = time.monotonic() + self._wait
        connection.execute("PRAGMA busy_timeout=0")
        try:
            while True:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as error:
                    # Of the kinds of BUSY, one is that another connection recovers the -wal.
                    is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                    if not is_busy or time.monotonic() > deadline:
                        raise
                else:
                    return
                time.sleep(_LOOK_SECONDS)
        finally:
            connection.execute(f"PRAGMA busy_timeout={self._wait * 1000:.0f}")

    def _open_among_users(self, connection: sqlite3.Connection) -> None:
        """Have SQLite open the files, unless others have yet to save a -wal that is gone.

        Raises sqlite3.Error, OSError.
        """
        with self._lock():
            self._users = Users(self._path)
            self._users.check()
            if self._reads_only:
                connection.execute(_LOOK).fetchone()
            else:
                _make_tables(connection)
            self._users.check()  # the -wal may have been deleted just before SQLite opened it
            self._opened_as = Inodes.at(self._path)
            if self._reads_only:
                self._leave()  # it has nothing to save that others wait for
            else:
                self._users.name(self._opened_as)

    def _connect(self) -> sqlite3.Connection:
        """Return a connection, with which SQLite has opened nothing yet."""
        path, mode = self._path, "ro" if self._reads_only else "rw"
        if not self._reads_only:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=self._wait,
            isolation_level=None,
            check_same_thread=False,
        )


def _make_tables(connection: sqlite3.Connection) -> None:
    """Make the tables that are missing, in a file with a -wal. Raises sqlite3.Error."""
    if not connection.execute("PRAGMA page_count").fetchone()[0]:
        # Both must come before the first table.
        connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript(_SCHEMA)


def _copy_wal(connection: sqlite3.Connection) -> None:
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
