"""Network addresses in settings: hosts, hosts with a port, and web addresses.

IPv6 addresses are written in brackets where a port may follow.
"""

import re
from ipaddress import ip_address
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator

_HOST_NAME = re.compile(r"[\w.-]+")
_NAMES_NO_HOST = (
    "is not a host: write a host name or an IP address alone, for example 127.0.0.1, ::1 or host.example.com"
)
_LARGEST_PORT = 65535


class Address(NamedTuple):
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return `host:port`, or `[::1]:port` for IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def local_address(host: str, port: int) -> Address:
    """Return the address at which this machine reaches a listener on `host`.

    A listener on all addresses is reached on loopback.
    """
    if is_ip(host) and ip_address(host).is_unspecified:
        return Address("::1" if ":" in host else "127.0.0.1", port)
    return Address(host, port)


def parse_host(text: str) -> str:
    """Return a host name or an IP address without brackets, which IPv6 may have. Raises ValueError."""
    host = text.strip()
    if _HOST_NAME.fullmatch(host) and _can_be_resolved(host):
        return host
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if _is_ipv6(host):
        return host
    raise ValueError(_NAMES_NO_HOST)


def parse_address(text: str, default_port: int) -> Address:
    """Parse `host`, `host:port`, `[::1]`, `[::1]:port` or `::1`. Raises ValueError."""
    address = text.strip()
    if _is_ipv6(address):
        return Address(address, default_port)
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        return Address(parse_host(address), default_port)
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= _LARGEST_PORT):
        raise ValueError(
            f"has a port that is not a number from 1 to {_LARGEST_PORT}: write host:{default_port} or"
            f" [::1]:{default_port}"
        )
    return Address(parse_host(host), int(port))


def parse_web_address(text: str) -> str:
    """Check that a URL is http or https, without user, password, query and fragment: it is shown and logged.

    Raises ValueError when it is not.
    """
    url = text.strip()
    if not re.match(r"https?://", url, re.IGNORECASE):
        raise ValueError(
            "does not begin with http:// or https://: write for example https://hooks.example.com"
        )
    if re.search(r"[?#\s]", url):
        raise ValueError(
            "must not contain blanks, a query (?) or a fragment (#): write for example"
            " https://hooks.example.com/path"
        )
    try:
        parts = urlsplit(url)
        has_host, _ = bool(parts.hostname) and _can_be_resolved(parts.hostname or ""), parts.port
    except ValueError:
        has_host = False
    if "@" in url.split("/")[2]:
        raise ValueError(
            "must not contain a user or a password, because it is shown in logs: write for example"
            " https://hooks.example.com"
        )
    if not has_host:
        raise ValueError(
            "has no valid host and port: write for example https://hooks.example.com, or http://[::1]:8080"
            " with IPv6"
        )
    return url


def is_ip(text: str) -> bool:
    """Return whether a text is an IPv4 or IPv6 address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host name or an IP address."""
    return host == "localhost" or (is_ip(host) and ip_address(host).is_loopback)


def _can_be_resolved(host: str) -> bool:
    """Return whether a text has the form of a host name: no empty part, and none of more than 63 bytes.

    Python's resolver raises another error than OSError for others:
    https://docs.python.org/3/library/codecs.html#module-encodings.idna
    """
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    return ":" in text and is_ip(text)


Host = Annotated[str, AfterValidator(parse_host)]
WebAddress = Annotated[str, AfterValidator(parse_web_address)]
