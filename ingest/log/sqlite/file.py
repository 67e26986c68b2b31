"""The file: its tables, opened in WAL mode and durable at commit, and found again when another takes its place."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from ingest.errors import LogUnavailable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (topic TEXT PRIMARY KEY, next_offset INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS records (
  topic TEXT NOT NULL, offset INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, headers TEXT NOT NULL,
  appended_at REAL NOT NULL, PRIMARY KEY (topic, offset)
);
CREATE TABLE IF NOT EXISTS commits (consumer_group TEXT, topic TEXT, next_offset INTEGER NOT NULL, PRIMARY KEY (consumer_group, topic));
"""

_BUSY_SECONDS = 10.0
_NO_FILE = (-1, -1)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


class LogFile:
    """The log's file, opened anew when another one has taken its place: what was deleted or moved must not go on being written to, unseen.

    `opened` counts how often. `limit` bounds its size in bytes: what would make it larger fails as on a full disk.
    """

    def __init__(self, path: Path, limit: int | None = None) -> None:
        self._path, self._limit = path, limit
        self._opened_as: tuple[int, int] | None = _NO_FILE
        self.opened = 0
        self._open()

    @property
    def connection(self) -> sqlite3.Connection:
        """To the file that is there now. Raises sqlite3.Error, OSError."""
        if _identity(self._path) != self._opened_as:
            self._opened_as = _NO_FILE  # not even the one that was there, should this fail and that one come back
            self._connection.close()
            self._open()
        return self._connection

    def close(self) -> None:
        self._connection.close()

    def _open(self) -> None:
        self._connection = _connect(self._path)
        if self._limit:
            (page,) = self._connection.execute("PRAGMA page_size").fetchone()
            self._connection.execute(f"PRAGMA max_page_count={max(1, self._limit // page)}")
        self._opened_as = _identity(self._path)
        self.opened += 1


@contextmanager
def unavailable(path: Path) -> Iterator[None]:
    """SQLite's errors, and the file system's, as LogUnavailable."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise LogUnavailable(f"the log {path} failed: {error}") from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def read_only(path: Path) -> sqlite3.Connection:
    """For those who only look. Raises sqlite3.Error where there is no file."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
    connection.execute("PRAGMA query_only=ON")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        with FileLock(f"{path}.lock", timeout=_BUSY_SECONDS, poll_interval=0.01, mode=0o600):  # going to WAL does not wait, it fails
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # must come before the first table
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)
        connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.close()
        raise
    return connection
