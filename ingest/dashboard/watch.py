"""The health of the product, gathered in the background while somebody looks at it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from ingest.health.facts import Facts
from ingest.health.gather import Rhythms, gather
from ingest.settings import Settings

_SHORTEST_AGE = timedelta(seconds=10)
_PAUSE_FACTOR = 9  # the pause after a gathering is so many times as long as it took


@dataclass(frozen=True, slots=True)
class Health:
    """The facts of a moment."""

    facts: Facts
    at: datetime


class HealthWatch:
    """Gathers the facts at most every ten seconds, however many browsers ask.

    Each gathering takes turns at the warehouse with the consumer, which must not wait for spectators: where
    it takes long, it takes a tenth of the time at most.
    """

    def __init__(
        self, settings: Callable[[], Settings], read: Callable[[Settings], Facts] | None = None
    ) -> None:
        self._settings, self._read = settings, read or partial(gather, rhythms=Rhythms())
        self._condition = threading.Condition()
        self._latest: Health | None = None
        self._gathering = False
        self._longest_age = _SHORTEST_AGE

    def latest(self) -> Health:
        """Return the newest facts, and gather newer ones if these are old. Waits for the very first."""
        with self._condition:
            is_old = self._latest is None or datetime.now(UTC) - self._latest.at > self._longest_age
            if is_old and not self._gathering:
                self._gathering = True
                threading.Thread(target=self._gather, name="health", daemon=True).start()
            self._condition.wait_for(lambda: self._latest is not None or not self._gathering)
            if self._latest is None:
                raise AssertionError("gathering ended without facts")
            return self._latest

    def _gather(self) -> None:
        latest, started = None, time.monotonic()
        try:
            latest = Health(self._read(self._settings()), datetime.now(UTC))
            took = timedelta(seconds=time.monotonic() - started)
            self._longest_age = max(_SHORTEST_AGE, _PAUSE_FACTOR * took)
        finally:
            with self._condition:
                self._latest = latest or self._latest
                self._gathering = False
                self._condition.notify_all()
