"""Why a vendor cannot be reached, in plain words, and for how long trying again may help. Pure."""

import errno
import math
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from requests.exceptions import ConnectTimeout, ProxyError
from urllib3.exceptions import ConnectTimeoutError, ReadTimeoutError
from urllib3.exceptions import ProxyError as PoolProxyError

from ingest.tls import explain_tls_error

# A name that is not known may be one that a resolver has not heard of yet.
_NAME_SECONDS = 10.0
_UNKNOWN_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
_NO_ROUTE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}
_CERTIFICATE_REMEDY = "is api_url right, and this machine's clock? Behind a proxy that opens TLS, set REQUESTS_CA_BUNDLE to a file with its certificate"
_PORT_REMEDY = "is api_url right, and its port?"
_PROXY_REMEDY = "look at HTTPS_PROXY and NO_PROXY"


@dataclass(frozen=True, slots=True)
class Trouble:
    """`remedy`: what to look at, where the settings may be wrong. `worth`: seconds after which trying again is of no use."""

    reason: str
    remedy: str = ""
    worth: float = math.inf

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.reason, self.remedy)))


def explain(error: BaseException, host: str) -> Trouble:
    """What an error of `requests` or of the network means. `host` is the one that was asked."""
    causes = list(_causes(error))[::-1]  # the innermost says most
    for check in (_tls, _proxy, _name, _connection):
        for cause in causes:
            if trouble := check(cause, host):
                return trouble
    return Trouble(f"no answer from {host} ({type(error).__name__})")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it was raised for: urllib3 has that in `reason`, or among the arguments."""
    pending, seen = [error], set[int]()
    while pending:
        cause = pending.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        inner = (getattr(cause, "reason", None), *cause.args, cause.__cause__, cause.__context__)
        pending += [one for one in inner if isinstance(one, BaseException)]


def _tls(cause: BaseException, host: str) -> Trouble | None:
    if not isinstance(cause, ssl.SSLError):
        return None
    found = explain_tls_error(cause, host)
    return Trouble(
        f"TLS with {host} fails: {found.text}",
        _CERTIFICATE_REMEDY if found.is_certificate else _PORT_REMEDY,
        0.0,
    )


def _proxy(cause: BaseException, host: str) -> Trouble | None:
    if not isinstance(cause, ProxyError | PoolProxyError):
        return None
    refused = next(
        (
            str(one)
            for one in _causes(cause)
            if isinstance(one, OSError) and "Tunnel connection failed" in str(one)
        ),
        "",
    )
    if refused:
        return Trouble(f"the proxy refuses to connect to {host} ({_status(refused)})", _PROXY_REMEDY, 0.0)
    return Trouble(f"the proxy on the way to {host} cannot be reached", _PROXY_REMEDY)


def _status(text: str) -> str:
    """Of `Tunnel connection failed: 407 Proxy Authentication Required`, what a proxy said, in one line."""
    said = text.rpartition("failed: ")[2]
    return "".join(char if char.isprintable() else " " for char in said)[:80]


def _name(cause: BaseException, host: str) -> Trouble | None:
    if not isinstance(cause, socket.gaierror):
        return None
    if cause.errno in _UNKNOWN_NAME:
        return Trouble(
            f"the name {host} is not known (DNS)",
            "is api_url right, and does this machine resolve names?",
            _NAME_SECONDS,
        )
    return Trouble(f"the name {host} cannot be resolved right now (DNS: {cause.strerror})")


def _connection(cause: BaseException, host: str) -> Trouble | None:
    if isinstance(cause, ConnectionRefusedError):
        return Trouble(f"{host} refuses the connection: nothing listens there")
    if isinstance(cause, ConnectTimeout | ConnectTimeoutError):
        return Trouble(f"no connection to {host} within the time limit: is a firewall in between?")
    if isinstance(cause, ReadTimeoutError | TimeoutError):
        return Trouble(f"{host} took the request and sent no answer within the time limit")
    if isinstance(
        cause, ConnectionResetError | BrokenPipeError | ConnectionAbortedError
    ):  # http.client.RemoteDisconnected is one
        return Trouble(f"{host} closed the connection without an answer")
    if isinstance(cause, OSError) and cause.errno in _NO_ROUTE:
        return Trouble(f"there is no route to {host}: is this machine online?")
    return None
