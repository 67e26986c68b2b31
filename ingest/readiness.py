"""Whether a process can do its work now, asked by anybody as often as they like: probes run seldom, one at a time, and nobody waits long."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from ingest.errors import IngestError
from ingest.finding import Finding, failed, failure, ok

# Returns findings, or nothing when all is well; may raise an IngestError instead.
Probe = Callable[[], Sequence[Finding] | None]

_FRESH_SECONDS = 5.0
_PATIENCE_SECONDS = 3.0


class Readiness:
    """Any number of threads may ask."""

    def __init__(
        self, probes: Mapping[str, Probe], fresh: float = _FRESH_SECONDS, patience: float = _PATIENCE_SECONDS
    ) -> None:
        """An answer is used again for `fresh` seconds; who asks waits for a new one for `patience` seconds at most."""
        self._probes = probes
        self._fresh, self._patience = fresh, patience
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._done.set()
        self._findings: list[Finding] = []
        self._until = 0.0
        self._current = ""

    def findings(self) -> list[Finding]:
        """What the probes found; while one of them hangs, that it does."""
        with self._lock:
            if self._done.is_set() and time.monotonic() >= self._until:
                self._done.clear()
                threading.Thread(target=self._look, name="readiness", daemon=True).start()
        if not self._done.wait(self._patience):
            return [failed(self._current, f"no answer within {self._patience:.0f} s")]
        return self._findings

    def _look(self) -> None:
        found: list[Finding] = []
        try:
            for name, probe in self._probes.items():
                self._current = name
                found += _probe(name, probe)
        finally:
            self._findings = found
            self._until = time.monotonic() + self._fresh
            self._done.set()


def _probe(name: str, probe: Probe) -> Sequence[Finding]:
    try:
        return probe() or [ok(name, "ready")]
    except IngestError as error:
        return [failure(name, error)]
    except Exception as error:  # noqa: BLE001 - a driver's error of whatever kind must not look like readiness
        return [failed(name, type(error).__name__)]
