"""Runs groups of checks side by side, and the checks of a group, which use the same thing, one by one.

Each has a time limit.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ingest.errors import IngestError
from ingest.finding import Finding, failed, failure

_LIMIT_SECONDS = 30.0

RunCheck = Callable[[], Sequence[Finding]]


@dataclass(slots=True)
class Check:
    """One check. `name` is that of its finding; a check with several findings names them itself."""

    name: str
    find: RunCheck
    findings: Sequence[Finding] = ()
    started: float | None = None
    finished: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Run the check. Whatever goes wrong becomes a finding."""
        self.started = time.monotonic()
        try:
            self.findings = self.find()
        except IngestError as error:
            self.findings = [failure(self.name, error)]
        except Exception as error:  # noqa: BLE001 - one check that breaks must not hide the others; its text may quote a secret
            self.findings = [
                failed(self.name, f"the check itself failed ({type(error).__name__})", "report this as a bug")
            ]
        finally:
            self.finished.set()

    def is_late(self, limit: float) -> bool:
        """Return whether the check began more than `limit` seconds ago."""
        return self.started is not None and time.monotonic() - self.started > limit


def run_groups(
    groups: Sequence[Sequence[Check]], limit: float = _LIMIT_SECONDS
) -> Iterator[tuple[Check, Sequence[Finding]]]:
    """Run the groups, and yield every check with its findings in the order given.

    Each comes as soon as it and those before it are done.
    """
    for group in groups:
        threading.Thread(target=_run_group, args=(group,), daemon=True).start()
    for group in groups:
        late = ""
        for check in group:
            if late:
                yield check, [failed(check.name, f"not checked, because {late} takes too long")]
            elif _wait(check, limit):
                yield check, check.findings
            else:
                late = check.name
                yield check, [failed(check.name, f"no answer within {limit:.0f} s")]


def _run_group(group: Sequence[Check]) -> None:
    for check in group:
        check.run()


def _wait(check: Check, limit: float) -> bool:
    """Wait for a check. Returns False when it takes longer than `limit` seconds."""
    while not check.finished.wait(0.05):
        if check.is_late(limit):
            return False
    return True
