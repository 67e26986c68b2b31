"""Taking a port, or saying clearly which setting asked for one that is taken."""

import socket

from ingest.errors import ConfigurationError


def bind(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket that worker processes may inherit. Raises ConfigurationError naming the setting."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}; choose another {setting}") from None
    sock.set_inheritable(True)
    return sock
