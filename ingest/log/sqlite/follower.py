"""Following a topic of the embedded log."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from ingest.errors import LogUnavailable
from ingest.log import MAX_POLL_BYTES, Start, StoredRecord
from ingest.log.sqlite.file import LogFile, unavailable
from ingest.log.sqlite.records import next_offsets, read_records

_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.02, 0.08  # doubled while nothing comes
_NO_END = sys.maxsize
_FIRST_SINCE = "SELECT offset FROM records WHERE topic = ? AND appended_at >= ? ORDER BY offset LIMIT 1"


class SqliteFollower:
    """Reads a topic while others append to it and delete what is old. The topic has one partition, 0."""

    def __init__(self, path: Path, topic: str, start: Start) -> None:
        """Begin at a time, at an offset, or with what is appended from now on. Raises LogUnavailable."""
        if not path.exists():
            raise LogUnavailable(
                f"there is no log yet: {path} is made by the first process that appends to it"
            )
        self._path, self._topic = path, topic
        with unavailable(path):
            self._file = LogFile(path)
            self._next = self._first(start)

    def poll(self, limit: int, timeout: float) -> list[StoredRecord]:
        deadline, pause = time.monotonic() + timeout, _POLL_SECONDS
        while True:
            with unavailable(self._path):
                records = self._read(limit)
            if records or (remaining := deadline - time.monotonic()) <= 0:
                return records
            time.sleep(min(remaining, pause))
            pause = min(2 * pause, _LONGEST_POLL_SECONDS)

    def position(self) -> Mapping[int, int]:
        return {0: self._next}

    def close(self) -> None:
        self._file.close()

    def _first(self, start: Start) -> int:
        if isinstance(start, Mapping):
            return start.get(0, 0)
        with self._file.use() as connection:
            end = next_offsets(connection).get(self._topic, 0)
            if start is None:
                return end
            row = connection.execute(_FIRST_SINCE, (self._topic, start.timestamp())).fetchone()
            return int(row[0]) if row else end

    def _read(self, limit: int) -> list[StoredRecord]:
        with self._file.use() as connection:
            if next_offsets(connection).get(self._topic, 0) < self._next:
                self._next = 0  # an older copy took the place of the file: what it has is read again
            offsets = range(self._next, _NO_END)
            records = read_records(connection, self._topic, offsets, limit, MAX_POLL_BYTES)
        if records:
            self._next = records[-1].offset + 1
        return records
