"""Appends to the embedded log."""

import json
import queue
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from ingest.errors import LogUnavailable
from ingest.log import Record
from ingest.log.sqlite.file import LogFile, transaction, unavailable

_MOST_IN_ONE_TRANSACTION = 1000

Append = tuple[str, Sequence[Record], "Future[None]"]


class SqliteProducer:
    """One writer thread that commits everything waiting in one transaction: as durable as one at a time, far faster."""

    def __init__(self, path: Path, limit: int | None = None) -> None:
        """`limit` bounds the file's size in bytes: appends fail where it would grow beyond."""
        self._path = path
        self._waiting: queue.SimpleQueue[Append | None] = queue.SimpleQueue()
        self._closed, self._closing = False, threading.Lock()
        with unavailable(path):
            self._file = LogFile(path, limit)
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
                with unavailable(self._path), transaction(connection := self._file.connection):
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
