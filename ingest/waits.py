"""Waits that are announced to the person who watches a command: what is waited for, and for how long already.

Code that waits calls `sleep`, `wait_while` or `Wait`, and does not know who listens. A command listens with
`announcing`.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")

STALLED_SECONDS = 60.0
_QUIET_SECONDS = 2.0  # a shorter wait is not announced
_ANNOUNCE_EVERY_SECONDS = 15.0
_SLICE_SECONDS = 1.0
_POLL_SECONDS = 0.1

Announce = Callable[[str], None]

_listeners: list[Announce] = []
_announcing = threading.Lock()


class Pause(Protocol):
    """A function that sleeps; tests give one that only moves their clock."""

    def __call__(self, seconds: float, /) -> None:
        """Return when so many seconds have passed."""


@contextmanager
def announcing(announce: Announce) -> Iterator[None]:
    """Call `announce` with a line of text for every wait in this process, one at a time."""
    _listeners.append(announce)
    try:
        yield
    finally:
        _listeners.remove(announce)


def announce(line: str) -> None:
    """Pass a line to every listener."""
    with _announcing:
        for listener in _listeners:
            listener(line)


class Wait:
    """A wait of unknown length, in a loop that calls `announce_if_due` in each round."""

    def __init__(self, reason: str, longest: float | None = None) -> None:
        """Begin a wait that the caller gives up after `longest` seconds."""
        self._reason = reason
        self._limit = f" (at most {longest:.0f} s)" if longest else ""
        self._started = time.monotonic()
        self._due = self._started + _QUIET_SECONDS

    def announce_if_due(self, reason: str = "") -> None:
        """Announce the wait, at first soon and then every 15 seconds; `reason` replaces the one before."""
        self._reason = reason or self._reason
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _ANNOUNCE_EVERY_SECONDS
            announce(f"still waiting after {(now - self._started):.0f} s{self._limit}: {self._reason}")


def sleep(seconds: float, reason: str, pause: Pause = time.sleep) -> None:
    """Sleep, and announce how much of the time is left."""
    end = time.monotonic() + seconds
    due = time.monotonic()
    while (remaining := end - time.monotonic()) > 0:
        if remaining >= _QUIET_SECONDS and time.monotonic() >= due:
            announce(f"waiting {remaining:.0f} s: {reason}")
            due = time.monotonic() + _ANNOUNCE_EVERY_SECONDS
        pause(min(remaining, _SLICE_SECONDS))


def ignore(_seconds: float) -> None:
    """Follow a wait without doing anything."""


def wait_while(
    pending: Callable[[], T | None],
    stalled: Callable[[T, float], Exception],
    reason: str,
    follow: Callable[[float], None] = ignore,
    expected_seconds: float = 0.0,
) -> None:
    """Wait until `pending` returns None.

    `reason` is announced. `follow` is called meanwhile with the seconds since `pending` last returned
    something else. When these exceed `expected_seconds` by a minute, this raises the error that `stalled`
    makes of what is pending and of that limit in seconds.
    """
    limit = expected_seconds + STALLED_SECONDS
    previous, changed_at = None, time.monotonic()
    wait = Wait(f"{reason}; gives up when nothing moves for {limit:.0f} s")
    while (state := pending()) is not None:
        wait.announce_if_due()
        if state != previous:
            previous, changed_at = state, time.monotonic()
        unchanged_seconds = time.monotonic() - changed_at
        follow(unchanged_seconds)
        if unchanged_seconds > limit:
            raise stalled(state, limit)
        time.sleep(_POLL_SECONDS)
