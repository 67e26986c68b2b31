"""Listening sockets, and errors that name the setting of a port that is taken."""

import errno
import os
import socket

from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from ingest.address import Address
from ingest.errors import ConfigurationError

_HOST_ERRORS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


def bind(host: str, port: int, setting: str) -> socket.socket:
    """Return a listening socket that worker processes may inherit.

    Raises ConfigurationError that names `setting`, the one of the port, or the one of the host.
    """
    try:
        sock = _listen(host, port)
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


@retry(
    retry=retry_if_exception(_is_taken_error), stop=stop_after_delay(3), wait=wait_fixed(0.1), reraise=True
)
def _listen(host: str, port: int) -> socket.socket:
    """Listen, and try again for a moment: the process that is replaced may be stopping."""
    return _server(host, port)


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
