"""Commands of `ingest` as processes, other Python programs, and what /proc says of processes."""

import json
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.polling import PATIENCE, wait_for

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "ingest"]

# What would choose other settings, or colour the output.
_NOT_OURS = (
    "INGEST_",
    "PROMETHEUS_",
    "FORCE_COLOR",
    "GITHUB_ACTIONS",
    "PY_COLORS",
    "CLICOLOR",
    "NO_COLOR",
    "COLUMNS",
    "PYTHONWARNINGS",
)


def environment(**extra: str) -> dict[str, str]:
    """Return the environment of every command: no settings of ours, no colour, wide lines."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS)}
    return {**inherited, "PYTHONPATH": str(ROOT), "COLUMNS": "250", **extra}


@dataclass(frozen=True, slots=True)
class Result:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)


def ingest(folder: Path, *arguments: str, **environ: str) -> Result:
    """Run a command to its end."""
    return run([*COMMAND, *arguments], folder, environment(**environ))


def run(command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> Result:
    """Run any program to its end."""
    completed = subprocess.run(
        command,
        cwd=folder,
        env=environ,
        umask=0,  # so that what is private is so by our doing
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Result(completed.returncode, completed.stdout, completed.stderr)


def refused(result: Result, code: int = 2) -> str:
    """Return the only message of a command that refuses: no traceback, nothing on standard output."""
    assert result.code == code, result
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert "Traceback" not in result.err
    return result.err.removeprefix("error: ").rstrip("\n")


class _ClosedAtEnd(ABC):
    """A context manager that closes itself when the context is left."""

    @abstractmethod
    def close(self) -> None:
        """Free what it holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class IngestProcess(_ClosedAtEnd):
    """A running command, which is started by the constructor and killed when the context is left.

    It writes into `NAME.stdout` and `NAME.stderr` in its folder, behind what processes before it wrote.
    """

    def __init__(
        self, folder: Path, name: str, command: Sequence[str], environ: Mapping[str, str], **options: Any
    ) -> None:
        """Start the command; `options` are further arguments of `subprocess.Popen`."""
        self._stdout, self._stderr = folder / f"{name}.stdout", folder / f"{name}.stderr"
        defaults: dict[str, Any] = {"cwd": folder, "stdin": subprocess.DEVNULL}
        with self._stdout.open("ab") as stdout, self._stderr.open("ab") as stderr:
            self._stdout_start, self._stderr_start = stdout.tell(), stderr.tell()
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                command, env=environ, stdout=stdout, stderr=stderr, **defaults | options
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Say whether it has not ended."""
        return self.process.poll() is None

    def stdout(self) -> str:
        """Return what it wrote to standard output."""
        return _read_from(self._stdout, self._stdout_start)

    def stderr(self) -> str:
        """Return what it wrote to standard error."""
        return _read_from(self._stderr, self._stderr_start)

    def written(self) -> str:
        """Return what it wrote to standard output and standard error."""
        return self.stdout() + self.stderr()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log entries of this event."""
        entries = []
        for line in self.stderr().splitlines():
            with suppress(ValueError):  # what is written for people, or cut off because it was killed
                entry = json.loads(line)
                entries += [entry] if isinstance(entry, dict) and entry.get("event") == event else []
        return entries

    def wait_for_event(self, event: str) -> dict[str, Any]:
        """Wait until it has logged this event, and return the first entry."""

        def entries() -> list[dict[str, Any]]:
            assert self.running, self.written()
            return self.logged(event)

        return wait_for(entries, f"{event} is logged")[0]

    def family(self) -> "list[Process]":
        """Return all processes that it started, while it runs."""
        return descendants(self.pid) if self.running else []

    def child(self, command: str) -> "Process | None":
        """Return the process that runs this command of `ingest` now."""
        return next((process for process in self.family() if f"-m ingest {command}" in process.command), None)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait until it ends, and return the exit code. Raises TimeoutExpired."""
        return self.process.wait(seconds)

    def stop(self) -> int:
        """Send SIGTERM, and return the exit code."""
        self.process.terminate()
        return self.wait()

    def kill(self) -> None:
        """Send SIGKILL, and leave its children to themselves."""
        self.process.kill()
        self.wait()

    def close(self) -> None:
        """Kill it, and wait until its children, which end when it is gone, have ended."""
        family = self.family()
        self.kill()
        wait_for(lambda: not any(process.alive for process in family), "the children end")


def _read_from(file: Path, start: int) -> str:
    return file.read_bytes()[start:].decode(errors="replace")


def start_ingest(folder: Path, *arguments: str, **environ: str) -> IngestProcess:
    """Start a command in a folder."""
    return IngestProcess(folder, arguments[0], [*COMMAND, *arguments], environment(**environ))


class PythonProcess(_ClosedAtEnd):
    """A Python program that can import the project, killed when the context is left.

    It is read from and written to by lines; standard error is that of the tests.
    """

    def __init__(self, code: str, *arguments: str, **environ: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(**environ),
            text=True,
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def read_line(self) -> str:
        """Return the next line it prints, without the end of the line; "" when it has ended."""
        assert self._process.stdout
        return self._process.stdout.readline().rstrip("\n")

    def write_line(self, text: str = "") -> None:
        """Write a line to its standard input."""
        print(text, file=self._process.stdin, flush=True)

    def finish(self) -> str:
        """Close its standard input, wait until it ends well, and return what it printed meanwhile."""
        output, _ = self._process.communicate(timeout=PATIENCE)
        assert self._process.returncode == 0
        return output

    def kill(self) -> None:
        """Kill it, and wait until it has ended."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill it, and close its streams."""
        with self._process:  # waits, and closes the streams
            self._process.kill()


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc shows it, identified even when a process id is used again.

    `started` is its start time in ticks since the machine started.
    """

    pid: int
    started: str
    parent: int
    command: str

    @property
    def alive(self) -> bool:
        """Say whether it runs; a zombie does not."""
        process = _read(self.pid)
        return process is not None and process.started == self.started


def _read(pid: int) -> Process | None:
    """Return the process, or None when it has ended or is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        command = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ").strip()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # after the name, which may hold anything: state, parent, ...
    return None if fields[0] in {"Z", "X"} else Process(pid, fields[19], int(fields[1]), command)


def descendants(pid: int) -> list[Process]:
    """Return the children, their children, and so on."""
    processes = [process for path in Path("/proc").glob("[0-9]*") if (process := _read(int(path.name)))]
    family = [process for process in processes if process.parent == pid]
    for process in family:
        family += [child for child in processes if child.parent == process.pid]
    return family
