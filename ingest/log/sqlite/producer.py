"""Appends to the embedded log."""

import json
import queue
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import structlog

from ingest.errors import LogUnavailable
from ingest.log import Record
from ingest.log.sqlite.file import LogFile, unavailable

log = structlog.get_logger()

_MOST_IN_ONE_TRANSACTION = 1000
_LOOK_SECONDS = 0.5  # how soon an idle producer lets go of a file that is no longer there

Append = tuple[str, Sequence[Record], "Future[None]"]


class SqliteProducer:
    """One writer thread that commits everything waiting in one transaction: as durable as one at a time, far faster."""

    def __init__(self, path: Path, limit: int | None = None) -> None:
        """`limit` bounds the file's size in bytes: appends fail where it would grow beyond."""
        self._path = path
        self._waiting: queue.SimpleQueue[Append | None] = queue.SimpleQueue()
        self._closed, self._closing = False, threading.Lock()
        self._after_last: dict[str, int] = {}  # by topic, the offset after what was appended here
        self._after_last_of = 0  # which opening of the file these are offsets of
        with unavailable(path):
            self._file = LogFile(path, limit)
        self._writer = threading.Thread(target=self._write, name="log-writer", daemon=True)
        self._writer.start()

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # a caller that gives up waiting cannot cancel what may already be written
        with self._closing:
            if self._closed:
                future.set_exception(
                    LogUnavailable(f"the log {self._path} was closed before this append; open it again")
                )
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
        while (first := self._next()) is not None:
            appends = [first, *self._others()]
            try:
                with unavailable(self._path):
                    self._commit(appends)
            except Exception as error:  # noqa: BLE001  whatever it is, callers must hear of it and this thread must live
                failure = (
                    error
                    if isinstance(error, LogUnavailable)
                    else LogUnavailable(f"the log {self._path} failed: {error!r}")
                )
                for _, _, future in appends:
                    future.set_exception(failure)
            else:
                for _, _, future in appends:
                    future.set_result(None)

    def _next(self) -> Append | None:
        while True:
            try:
                return self._waiting.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                with suppress(sqlite3.Error, OSError):  # the next append says so
                    self._file.let_go()

    def _commit(self, appends: Sequence[Append]) -> None:
        """Raises sqlite3.Error, OSError; then nothing of it is known to be durable."""
        after_last: dict[str, int] = {}
        try:
            with self._file.transaction() as connection:
                if self._file.opened != self._after_last_of:
                    self._tell_gone(connection)
                    self._after_last, self._after_last_of = {}, self._file.opened
                for topic, records, _ in appends:
                    after_last[topic] = _insert(connection, topic, records, self._after_last.get(topic, 0))
        except _OlderCopy:
            self._file.reopen()
            raise
        self._after_last |= after_last

    def _tell_gone(self, connection: sqlite3.Connection) -> None:
        """Log what was appended here and is not in the file that is there now. Raises sqlite3.Error."""
        written = dict(connection.execute("SELECT topic, next_offset FROM topics").fetchall())
        for topic, offset in self._after_last.items():
            if (gone := offset - written.get(topic, 0)) > 0:
                log.error(
                    "log.records_gone",
                    topic=topic,
                    records=gone,
                    why=f"{self._path} is an older copy, or another file; what was acknowledged and not loaded before that"
                    " is found by `ingest reconcile`",
                )

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


class _OlderCopy(sqlite3.OperationalError):
    """A copy was put over the file, which has no longer what was appended to it."""


def _insert(connection: sqlite3.Connection, topic: str, records: Sequence[Record], at_least: int) -> int:
    """Return the offset after them. Raises sqlite3.Error, of it _OlderCopy where theirs would be less than `at_least`."""
    last: int = connection.execute(
        "INSERT INTO topics VALUES (?, ?) ON CONFLICT DO UPDATE SET next_offset = next_offset + excluded.next_offset RETURNING next_offset",
        (topic, len(records)),
    ).fetchone()[0]
    if last - len(records) < at_least:
        raise _OlderCopy(f"it is an older copy: it no longer has what was appended to {topic} before")
    now = time.time()
    connection.executemany(
        "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)",
        [
            (topic, offset, record.key, record.value, json.dumps(dict(record.headers)), now)
            for offset, record in enumerate(records, start=last - len(records))
        ],
    )
    return last
