"""Waits that a person watches: one line when one begins, then one now and then, each with what is waited for and how long.

Code that waits uses `sleep` or `Wait`, and does not know who listens. A command listens with `announcing`; where nobody does,
nothing is told.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

_QUIET_SECONDS = 2.0  # a shorter wait is nobody's concern
_EVERY_SECONDS = 15.0
_SLICE_SECONDS = 1.0

Announce = Callable[[str], None]

_listeners: list[Announce] = []
_speaking = threading.Lock()


class Pause(Protocol):
    """How a thread sleeps, so that tests need not."""

    def __call__(self, seconds: float, /) -> None:
        """Returns when that many seconds have passed."""


@contextmanager
def announcing(announce: Announce) -> Iterator[None]:
    """Has every wait of this process told to `announce`, one line at a time."""
    _listeners.append(announce)
    try:
        yield
    finally:
        _listeners.remove(announce)


def announce(line: str) -> None:
    """Tells it to whoever listens."""
    with _speaking:
        for listener in _listeners:
            listener(line)


class Wait:
    """One wait of unknown length, in a loop that looks again and again: call `look` in each round."""

    def __init__(self, reason: str, longest: float | None = None) -> None:
        """`longest`: seconds after which it is given up."""
        self._reason = reason
        self._longest = longest
        self._began = time.monotonic()
        self._due = self._began + _QUIET_SECONDS

    def look(self, reason: str = "") -> None:
        """Tells it when that is due; `reason` where it is another one by now."""
        self._reason = reason or self._reason
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _EVERY_SECONDS
            announce(f"still waiting after {(now - self._began):.0f} s{self._limit()}: {self._reason}")

    def _limit(self) -> str:
        return f" (at most {self._longest:.0f} s)" if self._longest else ""


def sleep(seconds: float, reason: str, pause: Pause = time.sleep) -> None:
    """Sleeps, and tells how much of it is left."""
    end = time.monotonic() + seconds
    due = time.monotonic()
    while (left := end - time.monotonic()) > 0:
        if left >= _QUIET_SECONDS and time.monotonic() >= due:
            announce(f"waiting {left:.0f} s: {reason}")
            due = time.monotonic() + _EVERY_SECONDS
        pause(min(left, _SLICE_SECONDS))
