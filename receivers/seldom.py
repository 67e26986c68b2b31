"""What strangers can have logged as often as they like, told seldom enough that it does not fill the disk."""

import logging
import math
import re
import time
from collections.abc import Callable

_SECONDS = 10.0
_MOST = 1000  # kinds remembered; there are a few for each account


class Seldom:
    """The first of its kind is told at once, then one in ten seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[tuple[str, str, str], tuple[float, int]] = {}

    def unreported(self, event: str, source: str, why: str) -> int | None:
        """How many of this kind were not told since the last that was; None when this one is not to be told either."""
        key = (
            event,
            source,
            re.sub(r"\d+", "0", why),
        )  # it may count what somebody sent: another number is no other reason
        now = self._clock()
        since, untold = self._told.get(key, (-math.inf, 0))
        if now < since + _SECONDS:
            self._told[key] = since, untold + 1
            return None
        if len(self._told) >= _MOST:
            self._told.clear()
        self._told[key] = now, 0
        return untold


class SeldomWarned(logging.Filter):
    """For a library's warnings."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seldom = Seldom(clock)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to tell this one; all that is worse than a warning is told."""
        message = record.getMessage()
        unreported = (
            self._seldom.unreported(record.name, "", message) if record.levelno <= logging.WARNING else 0
        )
        if unreported:
            record.msg, record.args = f"{message} ({unreported} more were not reported)", None
        return unreported is not None
