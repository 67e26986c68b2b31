"""One worker's spool: an embedded log of its own, written and drained by this process alone."""

import base64
import math
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import orjson
import structlog

from ingest.errors import CommitFailed, LogHeld, LogRefused, LogUnavailable
from ingest.locks import lock_orphan
from ingest.log import Producer, Record, StoredRecord
from ingest.log.sqlite import SqliteConsumer, SqliteProducer, backlog, extent, group_lock
from ingest.private_file import replace_private

log = structlog.get_logger()

_GROUP = "drain"
_MOST = 100  # receiver.workers is at most 64
_SOME = 100  # at a time: of the largest bodies more would fill the memory
_ACKNOWLEDGED_SECONDS = 5.0


class SpoolFile:
    """Raises LogUnavailable, from every call, when the file cannot be used; so it does while another process has it."""

    def __init__(self, path: Path, topics: Sequence[str], limit: int) -> None:
        """`limit` is in bytes."""
        left = [entry.partition.topic for entry in backlog(path, _GROUP)]
        self.path = path
        self._reader = SqliteConsumer(
            path, _GROUP, list(dict.fromkeys([*topics, *left])), timedelta.max, patience=0
        )
        try:
            self._writer = SqliteProducer(path, limit)
        except LogUnavailable:
            self._reader.close()
            raise
        self._refused: set[str] = set()

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        """Resolves when they are fsynced; fails with LogUnavailable, above all when the spool or the disk is full."""
        return self._writer.append(topic, records)

    def waiting(self) -> int:
        """Records in it."""
        return sum(entry.lag for entry in self._reader.backlog())

    def oldest(self) -> float | None:
        """When the record that waits longest came, in Unix time."""
        return extent(self.path)[0]

    def drain(self, to: Producer) -> int:
        """Hands on the oldest, and forgets them once they are durable there: how many."""
        records = self._reader.poll(_SOME, 0)
        if records:
            try:
                self._hand_on(to, records)
                self._reader.commit(records)
            except CommitFailed as error:
                raise LogUnavailable(str(error)) from error
            except BaseException:  # whatever it is, these were not handed on
                self._reader.rewind()
                raise
            self._reader.prune(math.inf)
            self._refused.clear()
        return len(records)

    def shrink(self) -> bool:
        """Once it is empty, to give the disk back, some at a time; whether there is more."""
        return self._reader.shrink()

    def close(self) -> None:
        """What waits in it waits on."""
        self._writer.close()
        self._reader.close()

    def _hand_on(self, to: Producer, records: Sequence[StoredRecord]) -> None:
        """A topic's together: of single ones, a log that comes back meanwhile would take a newer one and have failed the one before it."""
        topics: dict[str, list[StoredRecord]] = {}
        for stored in records:
            if stored.position not in self._refused:
                topics.setdefault(stored.partition.topic, []).append(stored)
        handed = [
            (some, to.append(topic, [stored.record for stored in some])) for topic, some in topics.items()
        ]
        deadline = time.monotonic() + _ACKNOWLEDGED_SECONDS
        for some, future in handed:
            try:
                future.result(max(0.0, deadline - time.monotonic()))
            except LogRefused as refusal:
                self._find_refused(to, some, refusal)
            except TimeoutError:
                raise LogUnavailable("the log did not acknowledge") from None

    def _find_refused(self, to: Producer, records: Sequence[StoredRecord], refusal: LogRefused) -> None:
        if len(records) == 1:
            self._set_aside(records[0], refusal)
        else:
            for stored in records:
                self._hand_on(to, [stored])

    def _set_aside(self, stored: StoredRecord, refusal: LogRefused) -> None:
        """It would hold up all others for ever. The log takes it neither as it is nor as a dead letter, so it is kept as a file."""
        folder = self.path.parent / "refused"
        file = (
            folder / f"{time.time_ns()}-{self.path.stem}-{stored.offset}.json"
        )  # two workers may set aside at once
        record = stored.record
        told = {
            "topic": stored.partition.topic,
            "key": record.key,
            "headers": dict(record.headers),
            "value": base64.b64encode(record.value).decode(),
        }
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            replace_private(file, orjson.dumps(told))
        except OSError as error:
            raise LogUnavailable(f"{file} cannot be written: {error}") from error
        self._refused.add(stored.position)
        log.error("spool.refused", file=str(file), why=str(refusal))


def spool_files(folder: Path) -> list[Path]:
    """All files of a spool, whoever has them; none where there is no folder."""
    return sorted(folder.glob("spool-*.db"))


def claim(folder: Path, topics: Sequence[str], limit: int) -> list[SpoolFile]:
    """One for this process to write to, the first, and all in which processes that are gone left something. Empty where none can be used."""
    existing = spool_files(folder)
    fresh = (folder / f"spool-{number:03}.db" for number in range(_MOST))
    own = next(
        filter(None, (_open(path, topics, limit) for path in dict.fromkeys((*existing, *fresh)))), None
    )
    if own is None:
        return []
    left = (_open(path, topics, limit) for path in existing if path != own.path and _holds_some(path))
    return [own, *filter(None, left)]


def _open(path: Path, topics: Sequence[str], limit: int) -> SpoolFile | None:
    """None where another process has it, or nobody can."""
    try:
        return SpoolFile(path, topics, limit)
    except LogHeld:
        return None
    except (LogUnavailable, OSError) as error:
        log.error("spool.passed_over", file=str(path), why=str(error))  # noqa: TRY400 - where it was raised is of no use
        return None


def _holds_some(path: Path) -> bool:
    with suppress(LogUnavailable):
        return records_in(path) > 0
    return False


def waiting_topics(path: Path) -> list[str]:
    """The topics of the records that wait in a file, whoever has it. Raises LogUnavailable."""
    return [entry.partition.topic for entry in backlog(path, _GROUP) if entry.lag]


def is_held(path: Path) -> bool:
    """Whether a process that runs has the file."""
    try:
        with lock_orphan(group_lock(path, _GROUP)):
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def records_in(path: Path) -> int:
    """That wait in a file, whoever has it. Raises LogUnavailable."""
    return sum(entry.lag for entry in backlog(path, _GROUP))
