"""Processes as the system sees them, told apart also when a number is used again. Needs /proc."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.cli.command import PATIENCE

_LOOK_SECONDS = 0.2  # a look is work too, on a machine that has other work to do

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Process:
    """One process; `started` is when, in ticks since the machine was."""

    pid: int
    started: str
    parent: int
    command: str

    @property
    def alive(self) -> bool:
        """Dead ones that nobody has asked after yet do not count."""
        found = _read(self.pid)
        return found is not None and found.started == self.started


def _read(pid: int) -> Process | None:
    """None for one that is gone, or as good as."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        command = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ").strip()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # after the name, which may hold anything: state, parent, ...
    return None if fields[0] in {"Z", "X"} else Process(pid, fields[19], int(fields[1]), command)


def descendants(pid: int) -> list[Process]:
    """Children, their children, and so on."""
    everybody = [process for path in Path("/proc").glob("[0-9]*") if (process := _read(int(path.name)))]
    found = [process for process in everybody if process.parent == pid]
    for process in found:
        found += [child for child in everybody if child.parent == process.pid]
    return found


def eventually(look: Callable[[], T], what: str) -> T:
    """The first look's result that is something; a failure when that takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}"
        time.sleep(_LOOK_SECONDS)
    return found
