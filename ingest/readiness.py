"""Readiness of a process: findings of checks, probes that find them out, and the oldest unfinished work.

`ingest check` shows findings, and `/readyz` returns them as JSON.
"""

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

import structlog

from ingest.errors import IngestError
from ingest.telemetry import OLDEST_UNDONE_SECONDS
from ingest.times import describe_duration

log = structlog.get_logger()

_COMMAND = re.compile(r"`(ingest [^`…]+)`")
_MAX_AGE_SECONDS = 5.0
_PROBE_SECONDS = 3.0
_QUIET_SECONDS = 10.0  # shorter work is neither logged nor explained
_WATCH_EVERY_SECONDS = 1.0
_MAX_PAUSE_SECONDS = 300.0


class State(StrEnum):
    """The result of a check; `skipped` when the settings do not ask for it."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of the check named `check`, with a `remedy`.

    `unreachable` means that the next check may succeed with nothing changed here.
    """

    check: str
    state: State
    detail: str
    remedy: str = ""
    unreachable: bool = False

    @property
    def failed(self) -> bool:
        """Return whether the check failed."""
        return self.state is State.FAILED

    @property
    def sentence(self) -> str:
        """Return detail and remedy in one line."""
        return "; ".join(filter(None, (self.detail, self.remedy)))

    @property
    def command(self) -> str:
        """Return the first command that the remedy, or the detail, tells to run; "" where there is none."""
        match = _COMMAND.search(self.remedy) or _COMMAND.search(self.detail)
        return match[1] if match else ""

    def to_json(self) -> dict[str, Any]:
        """Return the finding for scripts; `ok` is false for a failure only."""
        return {
            "check": self.check,
            "state": str(self.state),
            "ok": not self.failed,
            "skipped": self.state is State.SKIPPED,
            "detail": self.detail,
            "remedy": self.remedy,
        }


def ok(check: str, detail: str) -> Finding:
    """Return the finding that something works."""
    return Finding(check, State.OK, detail)


def warning(check: str, detail: str, remedy: str = "") -> Finding:
    """Return the finding that something works, but perhaps not for long."""
    return Finding(check, State.WARNING, detail, remedy)


def failed(check: str, detail: str, remedy: str = "") -> Finding:
    """Return the finding that something does not work."""
    return Finding(check, State.FAILED, detail, remedy)


def failure(check: str, error: IngestError) -> Finding:
    """Return a finding from an error, whose message has the remedy in it."""
    return Finding(check, State.FAILED, str(error), unreachable=error.retryable)


def readiness_body(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the body of `/readyz`."""
    reasons = [f"{finding.check}: {finding.sentence}" for finding in findings if finding.failed]
    return {"ready": not reasons, "reasons": reasons, "checks": [finding.to_json() for finding in findings]}


# Returns findings, or nothing when all is well, or raises IngestError.
Probe = Callable[[], Sequence[Finding] | None]


class Readiness:
    """The findings of probes, for any number of threads."""

    def __init__(
        self,
        probes: Mapping[str, Probe],
        max_age: float = _MAX_AGE_SECONDS,
        timeout: float = _PROBE_SECONDS,
    ) -> None:
        """Set for how many seconds findings are valid, and how long a caller waits for new ones."""
        self._probes = probes
        self._max_age, self._timeout = max_age, timeout
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._done.set()
        self._findings: list[Finding] = []
        self._valid_until = 0.0
        self._current = ""

    def findings(self) -> list[Finding]:
        """Return what the probes found, or a failure of the one that hangs."""
        with self._lock:
            if self._done.is_set() and time.monotonic() >= self._valid_until:
                self._done.clear()
                threading.Thread(target=self._run_probes, name="readiness", daemon=True).start()
        if not self._done.wait(self._timeout):
            return [failed(self._current, f"no answer within {self._timeout:.0f} s")]
        return self._findings

    def _run_probes(self) -> None:
        findings: list[Finding] = []
        try:
            for name, probe in self._probes.items():
                self._current = name
                try:
                    findings += probe() or [ok(name, "ready")]
                except IngestError as error:
                    findings.append(failure(name, error))
                except Exception as error:  # noqa: BLE001 - whatever a driver raises, it must not look like readiness
                    findings.append(failed(name, type(error).__name__))
        finally:
            self._findings = findings
            self._valid_until = time.monotonic() + self._max_age
            self._done.set()


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
            time.sleep(_WATCH_EVERY_SECONDS)
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
