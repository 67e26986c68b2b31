"""What processes use, by /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

_KIB, _MIB = 1024, 1024 * 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """The processor seconds of a process and its children, and the sum of the most memory each has had."""

    cpu_seconds: float
    memory: int

    @property
    def mebibytes(self) -> float:
        """Return the memory in MiB."""
        return self.memory / _MIB


def processor_seconds(folder: Path) -> float:
    """Return the processor seconds of the process with this folder in /proc."""
    times = (folder / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def read_usage(pid: int) -> Usage:
    """Return what a process uses, with its children that have not ended."""
    folder = Path("/proc") / str(pid)
    cpu_seconds = processor_seconds(folder)
    memory = next(
        int(line.split()[1]) * _KIB
        for line in (folder / "status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    for child in (folder / "task" / str(pid) / "children").read_text().split():
        usage = read_usage(int(child))
        cpu_seconds, memory = cpu_seconds + usage.cpu_seconds, memory + usage.memory
    return Usage(cpu_seconds, memory)
