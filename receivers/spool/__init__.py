"""The spool, which keeps on disk what Kafka does not acknowledge in time, and appends it to Kafka later."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import structlog

from ingest.errors import LogRefused, LogUnavailable
from ingest.log import PolledProducer, Record
from ingest.telemetry import SPOOL_OLDEST_SECONDS, SPOOL_RECORDS, SPOOLED
from receivers.spool.file import SpoolFile, oldest_seconds

log = structlog.get_logger()

_IDLE_SECONDS = 0.1
_METRICS_SECONDS = 1.0
_CLAIM_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_CLOSE_SECONDS = 15.0


@dataclass(slots=True, eq=False)
class _Append:
    topic: str
    records: Sequence[Record]
    begun: float = field(default_factory=time.monotonic)
    future: "Future[None]" = field(default_factory=Future)

    def __post_init__(self) -> None:
        # A caller that gives up waiting cannot cancel what may already be written
        self.future.set_running_or_notify_cancel()


class SpoolingProducer:
    """A producer that appends to the log, or to the spool what the log fails or does not acknowledge in time.

    While anything is in the spool, everything goes there, so that nothing overtakes an older record of its
    booking.
    """

    def __init__(
        self,
        producer: PolledProducer,
        files: Sequence[SpoolFile],
        after: float,
        on_lost: Callable[[datetime], None] = lambda _: None,
        claim: Callable[[], list[SpoolFile]] = list,
    ) -> None:
        """Take the log's producer and the files: the first is written to, the others are only drained.

        `after` so many seconds an append goes to the spool, together with all later ones. `on_lost` is called
        when somebody took away files with records, of which the oldest came at that time or later. `claim` is
        called now and then, and returns files that processes have left since.
        """
        self._on_lost, self._claim = on_lost, claim
        self._producer, self._files, self._after = producer, list(files), after
        self._lock = threading.RLock()  # a future may be resolved by the thread that appends
        self._unacknowledged: dict[_Append, None] = {}  # in the order in which they came
        self._spooled = sum(file.record_count() for file in files)  # records
        self._spooled_since = _oldest(files)
        self._writing = 0  # appends to the spool that are not fsynced yet
        self._shrinking = False
        self._closing = threading.Event()
        self._drainer = threading.Thread(target=self._drain_until_closed, name="spool", daemon=True)
        self._drainer.start()

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        """Append records.

        The future resolves when all are durable in the log or in the spool; it fails with LogUnavailable
        otherwise.
        """
        append = _Append(topic, records)
        with self._lock:
            if self._spooled:
                self._spool([append])
            else:
                self._unacknowledged[append] = None
                self._producer.append(topic, records).add_done_callback(partial(self._on_log_answer, append))
        return append.future

    def poll(self) -> None:
        """Resolve the futures of what the log has acknowledged."""
        self._producer.poll()

    def close(self) -> None:
        """Close the log and the spool. Whoever opens the spool next drains it."""
        self._closing.set()
        self._drainer.join(_CLOSE_SECONDS)
        self._producer.close()
        with self._lock:
            self._fall_back()
        for file in self._files:
            file.close()

    def _on_log_answer(self, append: _Append, answer: "Future[None]") -> None:
        error = answer.exception()
        with self._lock:
            if append not in self._unacknowledged:
                return  # it is in the spool already, and the log may get it twice
            if error is not None and not isinstance(error, LogRefused):
                log.warning("spool.used", why=str(error))
                self._fall_back()
                return
            del self._unacknowledged[append]
        _resolve(append.future, error)

    def _fall_back(self) -> None:
        """Move all unacknowledged appends to the spool, so that none gets there after a later one.

        The caller holds the lock.
        """
        appends, self._unacknowledged = list(self._unacknowledged), {}
        self._spool(appends)

    def _spool(self, appends: Iterable[_Append]) -> None:
        """Append to the spool. The caller holds the lock."""
        for append in appends:
            if not self._spooled:
                self._spooled_since = datetime.now(UTC)
            self._spooled += len(append.records)
            self._writing += 1
            future = self._files[0].append(append.topic, append.records)
            future.add_done_callback(partial(self._on_spool_answer, append))

    def _on_spool_answer(self, append: _Append, answer: "Future[None]") -> None:
        error = answer.exception()
        with self._lock:
            self._writing -= 1
            self._spooled -= len(append.records) if error else 0
        if error is None:
            SPOOLED.inc(len(append.records))
        _resolve(append.future, error)

    def _drain_until_closed(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        next_metrics = 0.0
        next_claim = time.monotonic() + _CLAIM_SECONDS
        while not self._closing.is_set():
            try:
                if time.monotonic() >= next_metrics:
                    next_metrics = time.monotonic() + _METRICS_SECONDS
                    SPOOL_RECORDS.set(self._spooled)
                    with suppress(LogUnavailable):
                        SPOOL_OLDEST_SECONDS.set(oldest_seconds(self._files) if self._spooled else 0.0)
                if time.monotonic() >= next_claim:
                    next_claim = time.monotonic() + _CLAIM_SECONDS
                    self._take_over(self._claim())
                moved = self._drain()
                pause = _FIRST_PAUSE_SECONDS
            except Exception as error:  # noqa: BLE001 - whatever it is, this thread must live, or nothing would ever leave the spool
                why = str(error) if isinstance(error, LogUnavailable) else repr(error)
                log.warning("spool.waiting", records=self._spooled, why=why, seconds=round(pause, 1))
                self._closing.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                continue
            if not moved:
                self._closing.wait(_IDLE_SECONDS)

    def _take_over(self, files: Sequence[SpoolFile]) -> None:
        """Drain these files, too, before anything else is appended to the log."""
        if not files:
            return
        self._files += files  # first, so that they are closed whatever happens
        count, since = sum(file.record_count() for file in files), _oldest(files)
        log.info("spool.taken_over", files=[str(file.path) for file in files], records=count)
        with self._lock:
            self._spooled_since = min(since, self._spooled_since) if self._spooled else since
            self._spooled += count

    def _drain(self) -> int:
        """Append some of the spool to the log, and return how many records those were.

        What the log does not acknowledge in time goes to the spool first. Raises LogUnavailable.
        """
        with self._lock:
            oldest = next(iter(self._unacknowledged), None)
            if oldest and oldest.begun < time.monotonic() - self._after:
                log.warning("spool.used", why=f"the log did not acknowledge within {self._after:g} s")
                self._fall_back()
        if not self._spooled:
            self._shrinking = self._shrinking and any(file.shrink() for file in self._files)
            while not self._shrinking and len(self._files) > 1:
                self._files.pop().close()  # another process may need a file
            return 0
        moved = next(filter(None, (file.drain(self._producer) for file in reversed(self._files))), 0)
        lost = 0
        with self._lock:
            self._spooled -= moved
            if not moved and not self._writing:  # somebody took the file away, with what was in it
                remaining = sum(file.record_count() for file in self._files)
                lost, self._spooled = self._spooled - remaining, remaining
            if not self._spooled:
                log.info("spool.empty")
                self._shrinking = True
        if lost > 0:
            log.error("spool.lost", records=lost, why="a file of the spool was taken away; reconciling")
            self._on_lost(self._spooled_since)
        return moved


def _resolve(future: "Future[None]", error: BaseException | None) -> None:
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _oldest(files: Iterable[SpoolFile]) -> datetime:
    """Return when the oldest record in the files came; now where there is none, or nobody can say."""
    moments = [time.time()]
    with suppress(LogUnavailable):
        moments += [moment for file in files if (moment := file.oldest_at()) is not None]
    return datetime.fromtimestamp(min(moments), UTC)
