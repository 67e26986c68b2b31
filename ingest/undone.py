"""The oldest unfinished work of a process, for `/readyz`, metrics and the log."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog

from ingest.duration import describe_duration
from ingest.finding import Finding, failed, ok
from ingest.telemetry import OLDEST_UNDONE_SECONDS

log = structlog.get_logger()

_QUIET_SECONDS = 10.0  # shorter work is neither logged nor explained
_CHECK_SECONDS = 1.0
_MAX_PAUSE_SECONDS = 300.0


class UndoneWork:
    """The work under way in a part of the product, one piece at a time. Threads may share it."""

    def __init__(self, part: str, limit: timedelta, cause: Callable[[], str] = str) -> None:
        """Make the part not ready when its work takes longer than `limit`.

        `cause` returns what the work waits for, "" when that is not known.
        """
        self._part, self._limit, self._cause = part, limit, cause
        self._work: tuple[float, str] | None = None
        self._last_cause = ""

    def begin(self, what: str) -> None:
        """Note the work under way. After work that has not ended, it is the same work, tried again."""
        since = self._work[0] if self._work else time.monotonic()
        self._work = (since, what)

    def end(self) -> None:
        """Note that the work has ended."""
        self._work, self._last_cause = None, ""

    @property
    def seconds(self) -> float:
        """Return how long ago the work began; 0 when there is none."""
        work = self._work
        return time.monotonic() - work[0] if work else 0.0

    def probe(self) -> Sequence[Finding]:
        """Return a failure when the work takes longer than the limit."""
        work, seconds = self._work, self.seconds
        if not work:
            return [ok("undone", "nothing waits")]
        age = timedelta(seconds=seconds)
        return [
            judge_undone(
                self._part, self._describe(work[1], seconds), age, self._limit, "see what holds it up"
            )
        ]

    def watch(self) -> None:
        """Set the metric, and log work that takes long, from a thread until the process ends."""
        OLDEST_UNDONE_SECONDS.set_function(lambda: self.seconds)
        threading.Thread(target=self._watch, name="undone", daemon=True).start()

    def _watch(self) -> None:
        due = _QUIET_SECONDS
        while True:
            time.sleep(_CHECK_SECONDS)
            work, seconds = self._work, self.seconds
            if not work or seconds < _QUIET_SECONDS:
                due = _QUIET_SECONDS
                continue
            self._last_cause = self._cause()
            if seconds >= due:
                due = seconds + min(due, _MAX_PAUSE_SECONDS)
                log.warning(
                    "work.undone",
                    part=self._part,
                    why=self._describe(work[1], seconds),
                    seconds=round(seconds),
                )

    def _describe(self, what: str, seconds: float) -> str:
        cause = f"; it waits for {self._last_cause}" if self._last_cause else ""
        return f"{what}, for {describe_duration(timedelta(seconds=seconds))} now{cause}"


def judge_undone(part: str, detail: str, age: timedelta, limit: timedelta, remedy: str) -> Finding:
    """Return for `/readyz` whether the oldest work of a part has taken longer than its `undone_limit`."""
    if age > limit:
        return failed(
            "undone", f"{part}: {detail}", f"{remedy}; {part}.undone_limit is {describe_duration(limit)}"
        )
    return ok("undone", f"{part}: {detail}")
