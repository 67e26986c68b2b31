"""What a check found: shown by `ingest check`, and as JSON by `/readyz`."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ingest.errors import IngestError


class State(StrEnum):
    """`skipped`: not checked, because the settings do not ask for it."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` names what was looked at, `remedy` says what to do. `unreachable`: it may be well again later, with nothing changed here."""

    check: str
    state: State
    detail: str
    remedy: str = ""
    unreachable: bool = False

    @property
    def failed(self) -> bool:
        """Whether something does not work."""
        return self.state is State.FAILED

    @property
    def sentence(self) -> str:
        """Detail and remedy in one line."""
        return "; ".join(filter(None, (self.detail, self.remedy)))

    def to_json(self) -> dict[str, Any]:
        """For scripts. `ok` is false for a failure only."""
        return {
            "check": self.check,
            "state": str(self.state),
            "ok": not self.failed,
            "skipped": self.state is State.SKIPPED,
            "detail": self.detail,
            "remedy": self.remedy,
        }


def ok(check: str, detail: str) -> Finding:
    """It works."""
    return Finding(check, State.OK, detail)


def warning(check: str, detail: str, remedy: str = "") -> Finding:
    """It works, and will or may not for long."""
    return Finding(check, State.WARNING, detail, remedy)


def failed(check: str, detail: str, remedy: str = "") -> Finding:
    """It does not work until somebody does something."""
    return Finding(check, State.FAILED, detail, remedy)


def failure(check: str, error: IngestError) -> Finding:
    """What an error says; its message has the remedy in it."""
    return Finding(check, State.FAILED, str(error), unreachable=error.retryable)


def readiness(findings: Sequence[Finding]) -> dict[str, Any]:
    """The body of `/readyz`."""
    reasons = [f"{finding.check}: {finding.sentence}" for finding in findings if finding.failed]
    return {"ready": not reasons, "reasons": reasons, "checks": [finding.to_json() for finding in findings]}
