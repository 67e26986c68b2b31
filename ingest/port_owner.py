"""Which process listens on a port of this machine, as far as Linux tells this user."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"  # https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LONGEST = 80


@dataclass(frozen=True, slots=True)
class Owner:
    """`command` is the program with its arguments."""

    pid: int
    command: tuple[str, ...]

    @property
    def is_ingest(self) -> bool:
        """Whether it is a process of this project."""
        words = [Path(word).name for word in self.command]
        return (
            "ingest" in words[:3] or any(word.startswith("receivers.") for word in words) or self._is_worker()
        )

    def _is_worker(self) -> bool:
        """A worker process is started by a line of Python; what started it is of this project."""
        return (
            any("spawn_main" in word for word in self.command)
            and (parent := _parent(self.pid)) is not None
            and parent.is_ingest
        )

    def __str__(self) -> str:
        return f"pid {self.pid} ({' '.join(self.command)[:_LONGEST]})"


def owner_of(port: int) -> Owner | None:
    """None when nobody listens there, and when it is another user's process."""
    inodes = set(_listening(port))
    return (
        next((owner for pid in _pids() if inodes & _sockets(pid) and (owner := _owner(pid))), None)
        if inodes
        else None
    )


def _listening(port: int) -> Iterator[str]:
    for table in _TABLES:
        with suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _pids() -> Iterator[int]:
    with suppress(OSError):
        yield from sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _sockets(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found


def _owner(pid: int) -> Owner | None:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        return Owner(pid, tuple(word.decode("utf-8", "replace") for word in words))
    return None


def _parent(pid: int) -> Owner | None:
    with suppress(OSError, ValueError, IndexError):
        return _owner(
            int(
                Path(f"/proc/{pid}/stat")
                .read_text(encoding="utf-8", errors="replace")
                .rpartition(")")[2]
                .split()[1]
            )
        )
    return None
