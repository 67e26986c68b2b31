"""What processes use, by /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """The processor seconds of a process and its children, and the resident bytes of the largest of them."""

    cpu_seconds: float
    memory: int

    @property
    def mebibytes(self) -> float:
        """Return the memory in MiB."""
        return self.memory / _MIB


def read_usage(pid: int) -> Usage:
    """Return what a process uses, with its children that have not ended."""
    folder = Path("/proc") / str(pid)
    times = (folder / "stat").read_text().rsplit(")", 1)[1].split()
    cpu_seconds = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
    memory = int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    for child in (folder / "task" / str(pid) / "children").read_text().split():
        usage = read_usage(int(child))
        cpu_seconds, memory = cpu_seconds + usage.cpu_seconds, max(memory, usage.memory)
    return Usage(cpu_seconds, memory)
