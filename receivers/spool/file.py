"""A spool file of one worker: an embedded log that this process alone writes and drains."""

import base64
import math
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path

import orjson
import structlog

from ingest.errors import CommitFailed, LogRefused, LogUnavailable
from ingest.files import replace_private
from ingest.locks import lock_orphan
from ingest.log import Producer, Record, StoredRecord
from ingest.log.sqlite import SqliteConsumer, SqliteProducer, backlog, extent, group_lock

log = structlog.get_logger()

_GROUP = "drain"
_BATCH_RECORDS = 100  # more of the largest bodies would fill the memory
_ACKNOWLEDGED_SECONDS = 5.0


class SpoolFile:
    """An open spool file.

    Every call raises LogUnavailable when it cannot be used, for example while another process has it.
    """

    def __init__(self, path: Path, topics: Sequence[str], limit: int) -> None:
        """Open or make a file for at most `limit` bytes.

        It also reads topics that an earlier process left in it.
        """
        earlier_topics = [entry.partition.topic for entry in backlog(path, _GROUP)]
        all_topics = list(dict.fromkeys([*topics, *earlier_topics]))
        self.path = path
        self._reader = SqliteConsumer(path, _GROUP, all_topics, timedelta.max, patience=0)
        try:
            self._writer = SqliteProducer(path, limit)
        except LogUnavailable:
            self._reader.close()
            raise
        self._refused: set[str] = set()

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        """Append records.

        The future resolves when they are fsynced, or fails with LogUnavailable, above all when the disk is
        full.
        """
        return self._writer.append(topic, records)

    def record_count(self) -> int:
        """Return how many records are in the file."""
        return sum(entry.lag for entry in self._reader.backlog())

    def oldest_at(self) -> float | None:
        """Return when the oldest record came, in Unix time."""
        return extent(self.path)[0]

    def drain(self, producer: Producer) -> int:
        """Append the oldest records to a log, and forget them once they are durable there.

        Returns how many they were.
        """
        records = self._reader.poll(_BATCH_RECORDS, 0)
        if records:
            try:
                self._append_all(producer, records)
                self._reader.commit(records)
            except CommitFailed as error:
                raise LogUnavailable(str(error)) from error
            except BaseException:  # whatever it is, these were not appended
                self._reader.rewind()
                raise
            self._reader.prune(math.inf)
            self._refused.clear()
        return len(records)

    def shrink(self) -> bool:
        """Return some of an empty file's space to the disk. Returns whether there is more to return."""
        return self._reader.shrink()

    def close(self) -> None:
        """Close the file. What is in it stays there for whoever opens it next."""
        self._writer.close()
        self._reader.close()

    def _append_all(self, producer: Producer, records: Sequence[StoredRecord]) -> None:
        # The records of a topic go together: one by one, a log that comes back meanwhile might take a record
        # after it failed the one before.
        by_topic: dict[str, list[StoredRecord]] = {}
        for stored in records:
            if stored.position not in self._refused:
                by_topic.setdefault(stored.partition.topic, []).append(stored)
        futures = [
            (batch, producer.append(topic, [stored.record for stored in batch]))
            for topic, batch in by_topic.items()
        ]
        deadline = time.monotonic() + _ACKNOWLEDGED_SECONDS
        for batch, future in futures:
            try:
                future.result(max(0.0, deadline - time.monotonic()))
            except LogRefused as refusal:
                if len(batch) == 1:
                    self._set_aside(batch[0], refusal)
                else:  # find the one that is refused
                    for stored in batch:
                        self._append_all(producer, [stored])
            except TimeoutError:
                raise LogUnavailable("the log did not acknowledge") from None

    def _set_aside(self, stored: StoredRecord, refusal: LogRefused) -> None:
        """Write a record that the log refuses to a file of its own: it would hold up all others for ever."""
        folder = self.path.parent / "refused"
        # The name has the worker's file in it, because two workers may do this at once.
        file = folder / f"{time.time_ns()}-{self.path.stem}-{stored.offset}.json"
        record = stored.record
        document = {
            "topic": stored.partition.topic,
            "key": record.key,
            "headers": dict(record.headers),
            "value": base64.b64encode(record.value).decode(),
        }
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            replace_private(file, orjson.dumps(document))
        except OSError as error:
            raise LogUnavailable(f"{file} cannot be written: {error}") from error
        self._refused.add(stored.position)
        log.error("spool.refused", file=str(file), why=str(refusal))


def spool_files(folder: Path) -> list[Path]:
    """Return all files of a spool, whichever process has them; none where there is no folder."""
    return sorted(folder.glob("spool-*.db"))


def count_records(path: Path) -> int:
    """Return how many records are in a file, whichever process has it. Raises LogUnavailable."""
    return sum(entry.lag for entry in backlog(path, _GROUP))


def record_topics(path: Path) -> list[str]:
    """Return the topics of the records in a file, whichever process has it. Raises LogUnavailable."""
    return [entry.partition.topic for entry in backlog(path, _GROUP) if entry.lag]


def oldest_seconds(files: Iterable[SpoolFile]) -> float:
    """Return how long ago the oldest record in the files came, 0 without any. Raises LogUnavailable."""
    moments = [moment for file in files if (moment := file.oldest_at()) is not None]
    return time.time() - min(moments) if moments else 0.0


def is_locked(path: Path) -> bool:
    """Return whether a running process has the file."""
    try:
        with lock_orphan(group_lock(path, _GROUP)):
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False
