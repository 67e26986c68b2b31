"""The files of an embedded log, and another process that appends to it."""

import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from ingest.log.sqlite import SqliteConsumer, backlog
from tests.support.processes import PythonProcess

TOPIC = "bookings.calendly"
_WRITER = """
import sys, time
from pathlib import Path
import structlog
from ingest.errors import LogUnavailable
from ingest.log import Record
from ingest.log.sqlite import SqliteProducer

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
producer = SqliteProducer(Path(sys.argv[1]))
for line in sys.stdin:
    try:
        producer.append(sys.argv[2], [Record("key", line.strip().encode())]).result(60)
    except LogUnavailable:
        print("no", flush=True)
    else:
        print("yes", flush=True)
"""


class Writer:
    """Another process that appends on request, as a worker of a receiver does."""

    def __init__(self, path: Path) -> None:
        self._process = PythonProcess(_WRITER, str(path), TOPIC)
        self.acknowledged: list[bytes] = []

    def append(self, *texts: str) -> None:
        """Note the records that were acknowledged."""
        for text in texts:
            self._process.write_line(text)
            if self._process.read_line() == "yes":
                self.acknowledged.append(text.encode())

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def kill(self) -> None:
        """Kill the process."""
        self._process.close()


def consumer_of(path: Path) -> SqliteConsumer:
    return SqliteConsumer(path, "group", [TOPIC], timedelta(days=1))


def backlog_of(path: Path) -> object:
    return backlog(path, "group")


def all_in(path: Path) -> list[bytes]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT value FROM records ORDER BY topic, offset")]


def in_main_file(path: Path) -> list[bytes]:
    """Return what the main file has without its -wal, and open nothing beside it."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
            return [row[0] for row in connection.execute("SELECT value FROM records")]
    except sqlite3.Error:
        return []


def checkpoint(path: Path, kind: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(f"PRAGMA wal_checkpoint({kind})").fetchone()[0] == 0


def copy(path: Path, copied: Path) -> None:
    """Make a whole copy, as SQLite's backup does."""
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copied)) as target:
        source.backup(target)


def rename_over(copied: Path, path: Path) -> None:
    restored = path.with_name("restored")
    shutil.copy(copied, restored)
    restored.rename(path)


def take_away(path: Path, *kinds: str) -> None:
    for kind in kinds:
        path.with_name(f"{path.name}-{kind}").unlink()


def large(name: str, count: int) -> list[str]:
    return [f"{name}-{number} {'x' * 10_000}" for number in range(count)]


def texts(name: str, count: int) -> list[str]:
    return [f"{name}-{number}" for number in range(count)]
