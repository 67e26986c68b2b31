"""The second rung of the ladder: what Kafka does not acknowledge in time is fsynced beside the receiver, and handed on in order later."""

import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import structlog

from ingest.errors import LogRefused, LogUnavailable
from ingest.log import Producer, Record
from ingest.telemetry import SPOOL_OLDEST_SECONDS, SPOOL_RECORDS, SPOOLED
from receivers.spool.file import SpoolFile

log = structlog.get_logger()

_LOOK_SECONDS = 0.1
_TELL_SECONDS = 1.0
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
        self.future.set_running_or_notify_cancel()  # a caller that gives up waiting cannot cancel what may already be written


class SpoolingProducer:
    """Appends to the log; what it does not acknowledge within `after` seconds, or fails, goes to the spool, with all that was handed over since.

    While anything is in the spool, all that comes goes there too: nothing overtakes an older record of its booking.
    """

    def __init__(self, log_: Producer, spools: Sequence[SpoolFile], after: float) -> None:
        """The first of `spools` is written to; the others are only emptied."""
        self._log, self._spools, self._after = log_, spools, after
        self._lock = threading.RLock()  # a future may be resolved in the thread that asked for it
        self._unacknowledged: dict[_Append, None] = {}  # in the order they came
        self._waiting = sum(spool.waiting() for spool in spools)
        self._writing = 0  # appends to the spool that are not there yet
        self._shrinking = False
        self._closing = threading.Event()
        self._drainer = threading.Thread(target=self._run, name="spool", daemon=True)
        self._drainer.start()

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        """Resolves when every record is durable, in the log or in the spool; fails with LogUnavailable when in neither."""
        append = _Append(topic, records)
        with self._lock:
            if self._waiting:
                self._keep([append])
            else:
                self._unacknowledged[append] = None
                self._log.append(topic, records).add_done_callback(partial(self._answered, append))
        return append.future

    def close(self) -> None:
        """What waits in the spool is handed on by whoever opens it next."""
        self._closing.set()
        self._drainer.join(_CLOSE_SECONDS)
        self._log.close()
        with self._lock:
            self._fall_back()
        for spool in self._spools:
            spool.close()

    def _answered(self, append: _Append, answer: "Future[None]") -> None:
        error = answer.exception()
        with self._lock:
            if append not in self._unacknowledged:
                return  # it is in the spool, and the log may get it twice
            if error is not None and not isinstance(error, LogRefused):
                log.warning("spool.used", why=str(error))
                self._fall_back()
                return
            del self._unacknowledged[append]
        _resolve(append.future, error)

    def _fall_back(self) -> None:
        """All of them, so that what came later does not get there first. The lock is held."""
        appends, self._unacknowledged = list(self._unacknowledged), {}
        self._keep(appends)

    def _keep(self, appends: Iterable[_Append]) -> None:
        """The lock is held."""
        for append in appends:
            self._waiting += len(append.records)
            self._writing += 1
            self._spools[0].append(append.topic, append.records).add_done_callback(
                partial(self._kept, append)
            )

    def _kept(self, append: _Append, answer: "Future[None]") -> None:
        error = answer.exception()
        with self._lock:
            self._writing -= 1
            self._waiting -= len(append.records) if error else 0
        if error is None:
            SPOOLED.inc(len(append.records))
        _resolve(append.future, error)

    def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        told = 0.0
        while not self._closing.is_set():
            try:
                if time.monotonic() >= told:
                    told = time.monotonic() + _TELL_SECONDS
                    self._tell()
                moved = self._drain()
                pause = _FIRST_PAUSE_SECONDS
            except Exception as error:  # noqa: BLE001 - whatever it is, this thread must live, or nothing would ever be handed on
                why = str(error) if isinstance(error, LogUnavailable) else repr(error)
                log.warning("spool.waiting", records=self._waiting, why=why, seconds=round(pause, 1))
                self._closing.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                continue
            if not moved:
                self._closing.wait(_LOOK_SECONDS)

    def _drain(self) -> int:
        """How many records went on to the log. Raises LogUnavailable."""
        self._give_up_overdue()
        if not self._waiting:
            self._shrinking = self._shrinking and any(spool.shrink() for spool in self._spools)
            return 0
        moved = next(filter(None, (spool.drain(self._log) for spool in reversed(self._spools))), 0)
        with self._lock:
            self._waiting -= moved
            if not moved and not self._writing:  # somebody took the file away, and what was in it
                self._waiting = sum(spool.waiting() for spool in self._spools)
            if not self._waiting:
                log.info("spool.empty")
                self._shrinking = True
        return moved

    def _give_up_overdue(self) -> None:
        with self._lock:
            oldest = next(iter(self._unacknowledged), None)
            if oldest and oldest.begun < time.monotonic() - self._after:
                log.warning("spool.used", why=f"the log did not acknowledge within {self._after:g} s")
                self._fall_back()

    def _tell(self) -> None:
        SPOOL_RECORDS.set(self._waiting)
        with suppress(LogUnavailable):
            oldest = (
                [at for at in (spool.oldest() for spool in self._spools) if at is not None]
                if self._waiting
                else []
            )
            SPOOL_OLDEST_SECONDS.set(time.time() - min(oldest) if oldest else 0.0)


def _resolve(future: "Future[None]", error: BaseException | None) -> None:
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
