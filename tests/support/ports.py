"""Ports of the loopback that no other test gets."""

import itertools
import os
import random
import socket
from collections.abc import Iterator
from contextlib import closing, suppress

_WORKERS, _PORTS_EACH = 12, 1000


def free_port() -> int:
    """Return a port that nobody listens on, and that no other test gets meanwhile.

    Neither the system nor another process of pytest hands it out.
    """
    while True:
        port = next(_PORTS)
        with closing(socket.socket()) as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def _own_ports() -> Iterator[int]:
    """Cycle through the ports of this process of pytest, below those of the system (from 32768)."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 20_000 + worker % _WORKERS * _PORTS_EACH
    start = random.randrange(_PORTS_EACH)  # not where the run before began: its connections may still linger
    return (first + (start + number) % _PORTS_EACH for number in itertools.count())


_PORTS = _own_ports()
