"""A process of the product that can be killed, frozen and restarted.

It is started again whenever it is dead, as an operator's supervisor does.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.e2e.processes import Process, descendants

_ROOT = Path(__file__).parents[2]
_PAUSE_SECONDS = (0.05, 0.5)
_LOOK_SECONDS = 0.1
_STOP_SECONDS = 60.0
_KILLED = -signal.SIGKILL


class Child:
    """One `ingest` command as a process.

    `exits` counts, by exit code, how often it ended other than by our hand.
    """

    def __init__(
        self, command: Sequence[str], output: Path, environ: Mapping[str, str], chance: random.Random
    ) -> None:
        self.exits: Counter[int] = Counter()
        self._line = [sys.executable, "-m", "tests.faults.doomed", *command, "--with-parent"]
        self._output, self._environ, self._chance = output, dict(environ), chance
        self._due: float | None = None
        self._orphans: list[Process] = []
        self._process = self._start()

    def look(self) -> None:
        """Start it again, a little after it died; to be called often."""
        code = self._process.poll()
        if code is None:
            return
        if self._due is None:
            self.exits.update([code] if code != _KILLED else [])
            self._due = time.monotonic() + self._chance.uniform(*_PAUSE_SECONDS)
        elif time.monotonic() >= self._due:
            self._due = None
            self._close_pipe()
            self._process = self._start()

    @property
    def alive(self) -> bool:
        """Return whether it runs, also while it is frozen."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the process and leave its children to themselves."""
        self._orphans += descendants(self._process.pid)
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Freeze the process; it goes on where it was when it is thawed."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Thaw the process; do nothing where it is gone meanwhile."""
        self._process.send_signal(signal.SIGCONT)

    def workers(self) -> list[Process]:
        """Return the worker processes that answer requests, where it has any."""
        return [process for process in descendants(self._process.pid) if "spawn_main" in process.command]

    def stop(self) -> int:
        """Stop the process cleanly and return its exit code.

        A process that was frozen a moment ago, and that no fault will thaw any more, is thawed.
        """
        if self._process.poll() is None:
            self._process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        while self.alive and time.monotonic() < deadline:
            self.thaw()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_LOOK_SECONDS)
        code = self._process.wait(0)
        self._close_pipe()
        return code

    def end(self) -> None:
        """End the process and its children, whatever state they are in."""
        if self._process.poll() is None:
            self.kill()
        for process in self._orphans:
            signal_to(process, signal.SIGKILL)
        self._close_pipe()

    def _close_pipe(self) -> None:
        """Close the pipe that tells the process that we live."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._output.open("ab") as output:
            return subprocess.Popen(
                self._line,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=self._environ,
                cwd=_ROOT,
                start_new_session=True,
            )


def signal_to(process: Process, number: signal.Signals) -> bool:
    """Send the process a signal, and return whether it was there to get it."""
    with suppress(ProcessLookupError):
        if process.alive:
            os.kill(process.pid, number)
            return True
    return False
