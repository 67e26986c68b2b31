"""Measures for how long the log has acknowledged nothing, also across deliveries that were given up."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from ingest.errors import LogRefused
from ingest.log import PolledProducer, Record
from ingest.telemetry import OLDEST_UNDONE_SECONDS

_UPDATE_SECONDS = 1.0


class WatchedProducer:
    """A producer over another one, which knows for how long that has acknowledged nothing.

    Safe to use from several threads.
    """

    def __init__(self, producer: PolledProducer, topic: str, probe: Callable[[], Sequence[Record]]) -> None:
        """Take the producer, and what to append to `topic` when appends have failed and no more come.

        That shows whether the log takes records again.
        """
        self._producer, self._topic, self._probe = producer, topic, probe
        self._lock = threading.Lock()
        self._pending: dict[Future[None], float] = {}  # when each append began, the oldest first
        self._failing_since: float | None = None  # when the first of the appends began that failed in a row
        self._succeeded_at = 0.0
        self._closing = threading.Event()

    @property
    def seconds(self) -> float:
        """How long ago the oldest append began that is not acknowledged, 0 without any.

        Failed ones count until one succeeds.
        """
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

    def poll(self) -> None:
        """Poll the other producer."""
        self._producer.poll()

    def watch(self) -> None:
        """Update the metric in a thread until this is closed."""
        threading.Thread(target=self._update_until_closed, name="unacknowledged", daemon=True).start()

    def update(self) -> None:
        """Set the metric.

        Probes a log that has failed, unless an append is under way that will show whether it works again.
        """
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
            elif not isinstance(error, LogRefused):  # the log is not to blame for a record that it refuses
                since = max(begun, self._succeeded_at)
                self._failing_since = min(since, self._failing_since or since)

    def _update_until_closed(self) -> None:
        while not self._closing.wait(_UPDATE_SECONDS):
            self.update()
