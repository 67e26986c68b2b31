"""For how long the log has acknowledged nothing: that a delivery is given up and answered 503 must not make the time look shorter."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from ingest.errors import LogRefused
from ingest.log import Producer, Record
from ingest.telemetry import OLDEST_UNDONE_SECONDS

_LOOK_SECONDS = 1.0


class WatchedProducer:
    """Appends to another producer, and knows since when that has acknowledged nothing. Safe to call from several threads."""

    def __init__(self, producer: Producer, topic: str, probe: Callable[[], Sequence[Record]]) -> None:
        """When appends failed and no more come, what `probe` returns is appended to `topic`, to learn whether the log takes records again."""
        self._producer, self._topic, self._probe = producer, topic, probe
        self._lock = threading.Lock()
        self._pending: dict[Future[None], float] = {}  # since when, the oldest first
        self._failing_since: float | None = (
            None  # since the first of those appends began that failed in a row
        )
        self._succeeded_at = 0.0
        self._closing = threading.Event()

    @property
    def seconds(self) -> float:
        """Return how long ago the oldest append began that was not acknowledged; those that failed count until one succeeds. 0 without any."""
        with self._lock:
            begun = [next(iter(self._pending.values()), None), self._failing_since]
        return max((time.monotonic() - since for since in begun if since is not None), default=0.0)

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        """Append as the other producer does."""
        begun = time.monotonic()
        future = self._producer.append(topic, records)
        with self._lock:
            self._pending[future] = begun
        future.add_done_callback(partial(self._note, begun))
        return future

    def watch(self) -> None:
        """Keep the metric from a thread, until this is closed."""
        threading.Thread(target=self._watch, name="unacknowledged", daemon=True).start()

    def look(self) -> None:
        """Set the metric, and probe a log that failed where no append is under way that would show whether it takes records again."""
        OLDEST_UNDONE_SECONDS.set(self.seconds)
        if self._failing_since is not None and not self._pending:
            self.append(self._topic, self._probe())

    def close(self) -> None:
        """Close the other producer."""
        self._closing.set()
        self._producer.close()

    def _note(self, begun: float, future: "Future[None]") -> None:
        error = future.exception()
        with self._lock:
            self._pending.pop(future, None)
            if error is None:
                self._failing_since, self._succeeded_at = None, time.monotonic()
            elif not isinstance(error, LogRefused):  # which is the record's fault
                since = max(begun, self._succeeded_at)
                self._failing_since = min(since, self._failing_since or since)

    def _watch(self) -> None:
        while not self._closing.wait(_LOOK_SECONDS):
            self.look()
