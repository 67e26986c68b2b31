"""Readiness of a process, found out by probes.

Anybody may ask as often as they like: probes run seldom and one at a time, and nobody waits long.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from ingest.errors import IngestError
from ingest.finding import Finding, failed, failure, ok

# Returns findings, or nothing when all is well, or raises IngestError.
Probe = Callable[[], Sequence[Finding] | None]

_MAX_AGE_SECONDS = 5.0
_TIMEOUT_SECONDS = 3.0


class Readiness:
    """The findings of probes, for any number of threads."""

    def __init__(
        self,
        probes: Mapping[str, Probe],
        max_age: float = _MAX_AGE_SECONDS,
        timeout: float = _TIMEOUT_SECONDS,
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
                findings += _run_probe(name, probe)
        finally:
            self._findings = findings
            self._valid_until = time.monotonic() + self._max_age
            self._done.set()


def _run_probe(name: str, probe: Probe) -> Sequence[Finding]:
    try:
        return probe() or [ok(name, "ready")]
    except IngestError as error:
        return [failure(name, error)]
    except Exception as error:  # noqa: BLE001 - a driver's error of whatever kind must not look like readiness
        return [failed(name, type(error).__name__)]
