"""The oldest work that a process has begun and not finished: for `/readyz`, for metrics, and for a line in the log while it lasts."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog

from ingest.duration import describe_duration
from ingest.finding import Finding, failed, ok
from ingest.telemetry import OLDEST_UNDONE_SECONDS

log = structlog.get_logger()

_QUIET_SECONDS = 10.0  # shorter work is nobody's concern
_LOOK_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 300.0


class Undone:
    """One piece of work at a time, of one part of the product. Any thread may ask."""

    def __init__(self, part: str, limit: timedelta, cause: Callable[[], str] = str) -> None:
        """A part whose work takes longer than `limit` is not ready. `cause` says what the work waits for, "" where nobody knows."""
        self._part, self._limit, self._cause = part, limit, cause
        self._work: tuple[float, str] | None = None
        self._known_cause = ""

    def begin(self, what: str) -> None:
        """Note the work under way. What was begun before and not finished is the same work, tried again."""
        since = self._work[0] if self._work else time.monotonic()
        self._work = (since, what)

    def end(self) -> None:
        """Note that the work is finished."""
        self._work, self._known_cause = None, ""

    @property
    def seconds(self) -> float:
        """Return how long ago the work began; 0 where there is none."""
        work = self._work
        return time.monotonic() - work[0] if work else 0.0

    def probe(self) -> Sequence[Finding]:
        """Return a failure where the work takes longer than the limit."""
        work, seconds = self._work, self.seconds
        if not work:
            return [ok("undone", "nothing waits")]
        age = timedelta(seconds=seconds)
        return [
            judge_undone(
                self._part, self._sentence(work[1], seconds), age, self._limit, "see what holds it up"
            )
        ]

    def watch(self) -> None:
        """Keep the metric and log work that takes long, at first soon and then seldom, for as long as the process lives."""
        OLDEST_UNDONE_SECONDS.set_function(lambda: self.seconds)
        threading.Thread(target=self._watch, name="undone", daemon=True).start()

    def _watch(self) -> None:
        due = _QUIET_SECONDS
        while True:
            time.sleep(_LOOK_SECONDS)
            work, seconds = self._work, self.seconds
            if not work or seconds < _QUIET_SECONDS:
                due = _QUIET_SECONDS
                continue
            self._known_cause = self._cause()
            if seconds >= due:
                due = seconds + min(due, _LONGEST_PAUSE_SECONDS)
                log.warning(
                    "work.undone",
                    part=self._part,
                    why=self._sentence(work[1], seconds),
                    seconds=round(seconds),
                )

    def _sentence(self, what: str, seconds: float) -> str:
        cause = f"; it waits for {self._known_cause}" if self._known_cause else ""
        return f"{what}, for {describe_duration(timedelta(seconds=seconds))} now{cause}"


def judge_undone(part: str, detail: str, age: timedelta, limit: timedelta, remedy: str) -> Finding:
    """Say for `/readyz` whether the oldest work of a part has waited for longer than its `undone_limit`."""
    if age > limit:
        return failed(
            "undone", f"{part}: {detail}", f"{remedy}; {part}.undone_limit is {describe_duration(limit)}"
        )
    return ok("undone", f"{part}: {detail}")
