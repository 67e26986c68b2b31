"""Signs of a receiver's life in the audit topic, for `receivers.completeness.causes` to read.

A worker says that it has started, each minute that it runs, and that it stops. Whoever reads that knows when
no receiver ran, also when one was killed and could not say so. A sign also says which accounts' deliveries
were refused since the last one that the log has: answered 503, or refused for the time of their signature.
"""

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import orjson

from ingest.clock import LOOKBACK_IN_DOUBT
from ingest.event import ALIVE, RECEIVER_SOURCE, Cause, Event, digest
from ingest.log import Producer
from ingest.rhythm import start_of_hour
from ingest.times import format_instant

SIGN_EVERY = timedelta(minutes=1)
# A process that was frozen for longer did not run all the time since its last sign.
_FROZEN_SECONDS = 3 * SIGN_EVERY.total_seconds()
# By which the machine's clock may have been corrected between two signs.
_DRIFT_SECONDS = 5.0
_MOST_SPANS = 10_000  # of refused deliveries that are remembered

ANY_SOURCE = ""
"""Stands for a delivery that was answered before its account was known."""
REFUSALS = {Cause.UNAVAILABLE: "unavailable", Cause.CLOCK_WRONG: "untimely"}
"""The causes of refusals that a sign tells of, with their names in it."""

_Key = tuple[Cause, str, datetime]  # with the source, and the hour in which the deliveries were sent


@dataclass(slots=True)
class Refused:
    """How many deliveries of an hour were refused, and when the first and the last one were sent."""

    count: int
    since: datetime
    until: datetime


class RefusalCounter:
    """Counts deliveries that were refused although they may be right, by cause, source and hour.

    Threads may share it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused: dict[_Key, Refused] = {}

    def note(self, source: str, cause: Cause = Cause.UNAVAILABLE, sent_at: datetime | None = None) -> None:
        """Note that a delivery of a source is refused now, for a cause of REFUSALS.

        `sent_at` is when the vendor sent it, where this machine's clock may be wrong. One that was sent
        longer ago than LOOKBACK_IN_DOUBT counts as sent then: an old delivery that somebody sends again must
        not lead to a comparison of years.
        """
        now = datetime.now(UTC)
        at = max(sent_at or now, now - LOOKBACK_IN_DOUBT)
        key = cause, source, start_of_hour(min(at, now))  # so that a source has only so many
        with self._lock:
            if refused := self._refused.get(key):
                refused.count += 1
                refused.since, refused.until = min(at, refused.since), max(at, refused.until)
            elif len(self._refused) < _MOST_SPANS:
                self._refused[key] = Refused(1, at, at)

    def take(self) -> dict[_Key, Refused]:
        """Return what was counted, and begin anew."""
        with self._lock:
            refused, self._refused = self._refused, {}
        return refused

    def put_back(self, refused: Mapping[_Key, Refused]) -> None:
        """Count what was taken, because the log did not take it."""
        with self._lock:
            for key, earlier in refused.items():
                later = self._refused.get(key, Refused(0, earlier.since, earlier.until))
                self._refused[key] = Refused(
                    earlier.count + later.count,
                    min(earlier.since, later.since),
                    max(earlier.until, later.until),
                )


REFUSED = RefusalCounter()
"""The counter of this process."""


@dataclass
class LifeReporter:
    """Appends a worker's signs of life. Nothing here fails: a sign that the log does not take is left out.

    `spool` is the id of the worker's spool, "" without one. `monotonic` is a clock in seconds that nobody
    sets: for how long the worker has run does not depend on the machine's clock being right.
    """

    producer: Producer
    topic: str
    spool: str
    counter: RefusalCounter = field(default_factory=lambda: REFUSED)
    monotonic: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._receiver = uuid.uuid4().hex
        self._began_at = self._covered_at = self._signed_at = self.monotonic()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._sign_until_closed, name="life", daemon=True)

    def start(self) -> None:
        """Say that the worker has started, and then each minute that it runs."""
        self.sign("started")
        self._thread.start()

    def close(self) -> None:
        """Say that the worker stops. Call it before the producer is closed."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self.sign("stopped")

    def sign(self, state: str) -> None:
        """Append a sign of life. The worker has run since the last one, unless it was frozen."""
        now, monotonic = datetime.now(UTC), self.monotonic()
        if monotonic - self._signed_at > _FROZEN_SECONDS:
            self._began_at = self._covered_at = monotonic
        self._signed_at = monotonic
        ran_for = min(monotonic - self._covered_at + _DRIFT_SECONDS, monotonic - self._began_at)
        refused = self.counter.take()
        with suppress(Exception):  # as in `report_loss`: the receiver goes on
            event = self._event(state, now, now - timedelta(seconds=ran_for), refused)
            appended = self.producer.append(self.topic, [event.to_record()])
            appended.add_done_callback(partial(self._on_answer, monotonic, refused))
            return
        self.counter.put_back(refused)

    def _on_answer(self, signed_at: float, refused: Mapping[_Key, Refused], answer: "Future[None]") -> None:
        if answer.exception():
            self.counter.put_back(refused)
        else:
            self._covered_at = max(signed_at, self._covered_at)

    def _event(self, state: str, now: datetime, since: datetime, refused: Mapping[_Key, Refused]) -> Event:
        by_cause: dict[str, dict[str, list[object]]] = {name: {} for name in REFUSALS.values()}
        for (cause, source, _), of_hour in refused.items():
            span = {
                "count": of_hour.count,
                "since": format_instant(of_hour.since),
                "until": format_instant(of_hour.until),
            }
            by_cause[REFUSALS[cause]].setdefault(source, []).append(span)
        data = {"state": state, "since": format_instant(since), "spool": self.spool, **by_cause}
        return Event(
            id=digest(ALIVE, self._receiver, format_instant(now)),
            source=RECEIVER_SOURCE,
            type=ALIVE,
            subject=self._receiver,
            time=now,
            received_at=now,
            data=orjson.dumps(data),
        )

    def _sign_until_closed(self) -> None:
        while not self._closing.wait(SIGN_EVERY.total_seconds()):
            self.sign("runs")
