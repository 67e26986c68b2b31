"""Taking a port, or saying clearly which setting asked for one that is taken."""

import errno
import os
import socket

from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from ingest.address import Address
from ingest.errors import ConfigurationError


def bind(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket that worker processes may inherit. `setting` is the port's. Raises ConfigurationError naming it or the host's."""
    try:
        sock = _listen(host, port)
    except OSError as error:
        where = setting.removesuffix("port") + "host" if _is_about_the_host(error) else setting
        raise ConfigurationError(
            f"cannot listen on {Address(host, port)}: {_why(error)}; choose another {where}"
        ) from None
    sock.set_inheritable(True)
    return sock


def is_taken(host: str, port: int) -> bool:
    """Whether somebody listens there now. Raises ConfigurationError when nobody could."""
    try:
        with _server(host, port):
            return False
    except OSError as error:
        if _taken(error):
            return True
        raise ConfigurationError(f"cannot listen on {Address(host, port)}: {_why(error)}") from None


def _why(error: OSError) -> str:
    return str(error.strerror) if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)


def _is_about_the_host(error: OSError) -> bool:
    return isinstance(error, socket.gaierror) or error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


def _taken(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EADDRINUSE


@retry(retry=retry_if_exception(_taken), stop=stop_after_delay(3), wait=wait_fixed(0.1), reraise=True)
def _listen(host: str, port: int) -> socket.socket:
    """Tries for a moment: the process we take the place of may be on its way out."""
    return _server(host, port)


def _server(host: str, port: int) -> socket.socket:
    """For a name that has addresses of both families, the IPv4 one; `::` listens on both families where the system can."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = next((entry for entry in found if entry[0] == socket.AF_INET), found[0])
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(address, family=family, backlog=2048, dualstack_ipv6=both)
