"""Findings of checks, which `ingest check` shows and `/readyz` returns as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ingest.errors import IngestError


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
