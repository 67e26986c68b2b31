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

from tests.support.polling import Deadline
from tests.support.processes import ROOT, IngestProcess, Process

_PAUSE_SECONDS = (0.05, 0.5)
_LOOK_SECONDS = 0.1
_STOP_SECONDS = 60.0
_KILLED = -signal.SIGKILL


class SupervisedProcess:
    """One `ingest` command as a process.

    `exits` counts, by exit code, how often it ended other than by our hand.
    """

    def __init__(
        self, folder: Path, command: Sequence[str], environ: Mapping[str, str], chance: random.Random
    ) -> None:
        self.exits: Counter[int] = Counter()
        self._command = [sys.executable, "-m", "tests.faults.faulty_ingest", *command, "--with-parent"]
        self._folder, self._name, self._environ, self._chance = folder, command[0], dict(environ), chance
        self._due: float | None = None
        self._orphans: list[Process] = []
        self._process = self._start()

    def look(self) -> None:
        """Start it again, a little after it died; to be called often."""
        if self.alive:
            return
        if self._due is None:
            code = self._process.wait()
            self.exits.update([code] if code != _KILLED else [])
            self._due = time.monotonic() + self._chance.uniform(*_PAUSE_SECONDS)
        elif time.monotonic() >= self._due:
            self._due = None
            self._close_pipe()
            self._process = self._start()

    @property
    def alive(self) -> bool:
        """Return whether it runs, also while it is frozen."""
        return self._process.running

    def kill(self) -> None:
        """Kill the process and leave its children to themselves."""
        self._orphans += self._process.family()
        self._process.kill()

    def freeze(self) -> None:
        """Freeze the process; it goes on where it was when it is thawed."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Thaw the process; do nothing where it is gone meanwhile."""
        self._process.send_signal(signal.SIGCONT)

    def workers(self) -> list[Process]:
        """Return the worker processes that answer requests, where it has any."""
        return [process for process in self._process.family() if "spawn_main" in process.command]

    def stop(self) -> int:
        """Stop the process cleanly and return its exit code.

        A process that was frozen a moment ago, and that no fault will thaw any more, is thawed.
        """
        self._process.send_signal(signal.SIGTERM)
        deadline = Deadline("the process stops", _STOP_SECONDS)
        while self.alive:
            deadline.check()
            self.thaw()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_LOOK_SECONDS)
        code = self._process.wait()
        self._close_pipe()
        return code

    def end(self) -> None:
        """End the process and its children, whatever state they are in."""
        if self.alive:
            self.kill()
        for process in self._orphans:
            signal_to(process, signal.SIGKILL)
        self._close_pipe()

    def _close_pipe(self) -> None:
        """Close the pipe that tells the process that we live."""
        if self._process.process.stdin is not None:
            self._process.process.stdin.close()

    def _start(self) -> IngestProcess:
        return IngestProcess(
            self._folder, self._name, self._command, self._environ,
            cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip


def signal_to(process: Process, number: signal.Signals) -> bool:
    """Send the process a signal, and return whether it was there to get it."""
    with suppress(ProcessLookupError):
        if process.alive:
            os.kill(process.pid, number)
            return True
    return False
