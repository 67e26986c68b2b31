"""The process that listens on a port of this machine, as far as Linux tells this user."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"  # https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_MAX_COMMAND = 80


@dataclass(frozen=True, slots=True)
class PortOwner:
    """A process; `command` is the program with its arguments."""

    pid: int
    command: tuple[str, ...]

    @property
    def is_ingest(self) -> bool:
        """Return whether the process belongs to this project."""
        words = [Path(word).name for word in self.command]
        if "ingest" in words[:3] or any(word.startswith("receivers.") for word in words):
            return True
        if any("spawn_main" in word for word in self.command):  # a worker process, which Python has started
            parent = _parent(self.pid)
            return parent is not None and parent.is_ingest
        return False

    def __str__(self) -> str:
        return f"pid {self.pid} ({' '.join(self.command)[:_MAX_COMMAND]})"


def find_port_owner(port: int) -> PortOwner | None:
    """Return the process that listens on a port; None when there is none, or it is another user's."""
    inodes = set(_listening_inodes(port))
    if not inodes:
        return None
    pids = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return next((owner for pid in pids if inodes & _socket_inodes(pid) and (owner := _process(pid))), None)


def _listening_inodes(port: int) -> Iterator[str]:
    for table in _TABLES:
        with suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _socket_inodes(pid: int) -> set[str]:
    inodes = set()
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    return inodes


def _process(pid: int) -> PortOwner | None:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        return PortOwner(pid, tuple(word.decode("utf-8", "replace") for word in words))
    return None


def _parent(pid: int) -> PortOwner | None:
    with suppress(OSError, ValueError, IndexError):
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return _process(int(stat.rpartition(")")[2].split()[1]))
    return None
