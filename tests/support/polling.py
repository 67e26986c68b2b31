"""Waiting for a condition, with a bound, and asking servers that may not listen yet."""

from collections.abc import Callable
from time import monotonic, sleep  # by name: a test may replace those of the module
from typing import TypeVar

import httpx

PATIENCE = 120.0  # long, for a slow machine; a test that passes never waits for it

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.01, 0.1

T = TypeVar("T")


class Deadline:
    """A point in time, after which a loop that waits for something fails."""

    def __init__(self, description: str, seconds: float = PATIENCE) -> None:
        self._description, self._seconds = description, seconds
        self._end = monotonic() + seconds

    def check(self) -> None:
        """Raise AssertionError when the time is over."""
        assert monotonic() < self._end, f"not within {self._seconds:g} s: {self._description}"


def wait_for(condition: Callable[[], T | None], description: str, seconds: float = PATIENCE) -> T:
    """Return the condition's first true result.

    The condition is asked less and less often, because asking is work too. Raises AssertionError, with the
    description of the condition, when it takes too long.
    """
    deadline, pause = Deadline(description, seconds), _FIRST_PAUSE_SECONDS
    while not (result := condition()):
        deadline.check()
        sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
    return result


def get(url: str) -> httpx.Response | None:
    """Return the response of a server; None while there is no connection to it."""
    try:
        return httpx.get(url, timeout=PATIENCE)
    except httpx.TransportError:
        return None


def is_healthy(url: str) -> bool:
    """Return whether a receiver answers at this URL."""
    response = get(f"{url}/healthz")
    return response is not None and response.is_success
