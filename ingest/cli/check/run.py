"""Checks run side by side, in lanes: those of one lane one after the other, because they use the same thing. Each has a time limit."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ingest.errors import IngestError
from ingest.finding import Finding, failed, failure

_LIMIT_SECONDS = 30.0

Look = Callable[[], Sequence[Finding]]


@dataclass(slots=True)
class Check:
    """`name` is that of its finding; checks with several findings name those themselves."""

    name: str
    look: Look
    findings: Sequence[Finding] = ()
    started: float | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Whatever goes wrong is a finding."""
        self.started = time.monotonic()
        try:
            self.findings = self.look()
        except IngestError as error:
            self.findings = [failure(self.name, error)]
        except Exception as error:  # noqa: BLE001 - one check that breaks must not hide the others; its text may quote a secret
            self.findings = [
                failed(self.name, f"the check itself failed ({type(error).__name__})", "report this as a bug")
            ]
        finally:
            self.done.set()

    def is_late(self, limit: float) -> bool:
        """Whether it began longer ago than `limit` seconds."""
        return self.started is not None and time.monotonic() - self.started > limit


def run_lanes(
    lanes: Sequence[Sequence[Check]], limit: float = _LIMIT_SECONDS
) -> Iterator[tuple[Check, Sequence[Finding]]]:
    """Every check with what it found, in the order given, each as soon as it and those before it are done."""
    for lane in lanes:
        threading.Thread(target=_run, args=(lane,), daemon=True).start()
    for lane in lanes:
        late = ""
        for check in lane:
            if late:
                yield check, [failed(check.name, f"not checked, because {late} takes too long")]
            elif _wait(check, limit):
                yield check, check.findings
            else:
                late = check.name
                yield check, [failed(check.name, f"no answer within {limit:.0f} s")]


def _run(lane: Sequence[Check]) -> None:
    for check in lane:
        check.run()


def _wait(check: Check, limit: float) -> bool:
    while not check.done.wait(0.05):
        if check.is_late(limit):
            return False
    return True
