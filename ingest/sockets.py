"""Listening sockets, and the process that listens on a port."""

import errno
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from ingest.address import Address
from ingest.errors import ConfigurationError

_HOST_ERRORS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}

_LISTEN = "0A"  # https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_MAX_COMMAND = 80


def bind(host: str, port: int, setting: str) -> socket.socket:
    """Return a listening socket that worker processes may inherit.

    Raises ConfigurationError that names `setting`, the one of the port, or the one of the host.
    """
    # The process that is replaced may be stopping.
    retrying = Retrying(
        retry=retry_if_exception(_is_taken_error),
        stop=stop_after_delay(3),
        wait=wait_fixed(0.1),
        reraise=True,
    )
    try:
        sock = retrying(_server, host, port)
    except OSError as error:
        is_host_wrong = isinstance(error, socket.gaierror) or error.errno in _HOST_ERRORS
        where = setting.removesuffix("port") + "host" if is_host_wrong else setting
        raise ConfigurationError(
            f"cannot listen on {Address(host, port)}: {_describe(error)}; choose another {where}"
        ) from None
    sock.set_inheritable(True)
    return sock


def is_taken(host: str, port: int) -> bool:
    """Return whether a process listens there now. Raises ConfigurationError when none could."""
    try:
        with _server(host, port):
            return False
    except OSError as error:
        if _is_taken_error(error):
            return True
        raise ConfigurationError(f"cannot listen on {Address(host, port)}: {_describe(error)}") from None


def _describe(error: OSError) -> str:
    return str(error.strerror) if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)


def _is_taken_error(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EADDRINUSE


def _server(host: str, port: int) -> socket.socket:
    """Make a server socket.

    A name with addresses of both families listens on IPv4, and `::` on both families if the system can.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = next(
        (entry for entry in addresses if entry[0] == socket.AF_INET), addresses[0]
    )
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(address, family=family, backlog=2048, dualstack_ipv6=both)


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
    inodes: set[str] = set()
    for table in _TABLES:
        with suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(fields[9])
    if not inodes:
        return None
    pids = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return next((owner for pid in pids if inodes & _socket_inodes(pid) and (owner := _process(pid))), None)


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
