"""Processes from /proc, identified even when a process id is used again."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.ingest.cli.command import PATIENCE

_POLL_SECONDS = 0.2  # polling is work too, on a machine that has other work to do

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Process:
    """A process; `started` is its start time in ticks since the machine started."""

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


def eventually(condition: Callable[[], T], description: str) -> T:
    """Return the condition's first true result. Raises AssertionError when it takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {description}"
        time.sleep(_POLL_SECONDS)
    return result
