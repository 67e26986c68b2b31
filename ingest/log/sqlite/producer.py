"""A producer of the embedded log."""

import queue
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import structlog

from ingest.errors import LogUnavailable
from ingest.log import Record
from ingest.log.sqlite.file import LogFile, unavailable
from ingest.log.sqlite.records import insert_records, next_offsets

log = structlog.get_logger()

_MAX_APPENDS = 1000
_IDLE_SECONDS = 0.5  # after which an idle producer closes a file that was replaced

Append = tuple[str, Sequence[Record], "Future[None]"]


class SqliteProducer:
    """A producer whose thread commits all waiting appends in one transaction, for speed."""

    def __init__(self, path: Path, limit: int | None = None) -> None:
        """Open the file; appends fail beyond `limit` bytes."""
        self._path = path
        self._waiting: queue.SimpleQueue[Append | None] = queue.SimpleQueue()
        self._closed, self._closing = False, threading.Lock()
        self._after_last: dict[str, int] = {}  # by topic, the offset after the last record appended here
        self._after_last_of = 0  # the number of the opening of the file in which these offsets were taken
        with unavailable(path):
            self._file = LogFile(path, limit)
        self._writer = threading.Thread(target=self._write, name="log-writer", daemon=True)
        self._writer.start()

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        future: Future[None] = Future()
        # A caller that gives up waiting cannot cancel what may already be written.
        future.set_running_or_notify_cancel()
        with self._closing:
            if self._closed:
                future.set_exception(
                    LogUnavailable(f"the log {self._path} was closed before this append; open it again")
                )
            else:
                self._waiting.put((topic, records, future))
        return future

    def poll(self) -> None:
        """Do nothing: the thread that waits for the disk has each outcome first."""

    def close(self) -> None:
        with self._closing:
            if not self._closed:
                self._waiting.put(None)
            self._closed = True
        self._writer.join()
        self._file.close()

    def _write(self) -> None:
        while (first := self._next()) is not None:
            appends = [first, *self._waiting_appends()]
            try:
                with unavailable(self._path):
                    self._commit(appends)
            except Exception as error:  # noqa: BLE001  callers must get any error, and this thread must go on
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
                return self._waiting.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with suppress(sqlite3.Error, OSError):  # the next append fails for the same reason
                    self._file.close_if_replaced()

    def _commit(self, appends: Sequence[Append]) -> None:
        """Commit appends in one transaction.

        Raises sqlite3.Error, OSError; then none of them is certain to be durable.
        """
        by_topic: dict[str, list[Record]] = {}
        for topic, records, _ in appends:
            by_topic.setdefault(topic, []).extend(records)
        after_last: dict[str, int] = {}
        try:
            with self._file.transaction() as connection:
                if self._file.opened != self._after_last_of:
                    self._log_missing(connection)
                    self._after_last, self._after_last_of = {}, self._file.opened
                for topic, records in by_topic.items():
                    after_last[topic] = insert_records(connection, topic, records)
                    self._check_continues(topic, after_last[topic] - len(records))
        except _OlderCopy:
            self._file.reopen()
            raise
        self._after_last |= after_last

    def _check_continues(self, topic: str, offset: int) -> None:
        """Raise _OlderCopy when a record at this offset would not come after all that were appended here."""
        if offset < self._after_last.get(topic, 0):
            raise _OlderCopy(f"it is an older copy: it no longer has what was appended to {topic} before")

    def _log_missing(self, connection: sqlite3.Connection) -> None:
        """Log how many records that were appended here the file lacks now. Raises sqlite3.Error."""
        written = next_offsets(connection)
        for topic, offset in self._after_last.items():
            if (missing := offset - written.get(topic, 0)) > 0:
                log.error(
                    "log.records_gone",
                    topic=topic,
                    records=missing,
                    why=f"{self._path} is an older copy, or another file; `ingest reconcile` finds what "
                    "was acknowledged and not loaded before",
                )

    def _waiting_appends(self) -> Iterator[Append]:
        for _ in range(_MAX_APPENDS):
            try:
                append = self._waiting.get_nowait()
            except queue.Empty:
                return
            if append is None:
                self._waiting.put(None)  # the end comes after these: leave it for the loop
                return
            yield append


class _OlderCopy(sqlite3.OperationalError):
    """The file was replaced by an older copy, which lacks what was appended before."""
