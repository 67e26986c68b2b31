"""Taking a port, or saying clearly which setting asked for one that is taken."""

import errno
import os
import socket

from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from ingest.errors import ConfigurationError


def bind(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket that worker processes may inherit. Raises ConfigurationError naming the setting."""
    try:
        sock = _listen(host, port)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}; choose another {setting}") from None
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
        raise ConfigurationError(f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}") from None


def _taken(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EADDRINUSE


@retry(retry=retry_if_exception(_taken), stop=stop_after_delay(3), wait=wait_fixed(0.1), reraise=True)
def _listen(host: str, port: int) -> socket.socket:
    """Tries for a moment: the process we take the place of may be on its way out."""
    return _server(host, port)


def _server(host: str, port: int) -> socket.socket:
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048)
