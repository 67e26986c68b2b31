"""Explanations, in plain words, of why a vendor cannot be reached, and for how long trying again may help.

The functions here are pure.
"""

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

# A resolver may not know a name yet that exists.
_UNKNOWN_NAME_SECONDS = 10.0
_UNKNOWN_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
_NO_ROUTE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}
_CERTIFICATE_REMEDY = (
    "is api_url right, and this machine's clock? "
    "Behind a proxy that opens TLS, set REQUESTS_CA_BUNDLE to a file with its certificate"
)
_PORT_REMEDY = "is api_url right, and its port?"
_PROXY_REMEDY = "look at HTTPS_PROXY and NO_PROXY"


@dataclass(frozen=True, slots=True)
class ConnectionProblem:
    """The reason why there was no response.

    `remedy` says what to check, where the settings may be wrong. `retry_seconds` is the time after which
    trying again is of no use.
    """

    reason: str
    remedy: str = ""
    retry_seconds: float = math.inf

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.reason, self.remedy)))


def explain(error: BaseException, host: str) -> ConnectionProblem:
    """Return what an error of `requests` or of the network means for a request to this host."""
    causes = list(_causes(error))[::-1]  # the innermost cause says most
    for check in (_explain_tls, _explain_proxy, _explain_name, _explain_connection):
        for cause in causes:
            if problem := check(cause, host):
                return problem
    return ConnectionProblem(f"no answer from {host} ({type(error).__name__})")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and all errors that caused it. urllib3 has those in `reason` or among the arguments."""
    pending, visited = [error], set[int]()
    while pending:
        cause = pending.pop(0)
        if id(cause) in visited:
            continue
        visited.add(id(cause))
        yield cause
        inner = (getattr(cause, "reason", None), *cause.args, cause.__cause__, cause.__context__)
        pending += [value for value in inner if isinstance(value, BaseException)]


def _explain_tls(cause: BaseException, host: str) -> ConnectionProblem | None:
    if not isinstance(cause, ssl.SSLError):
        return None
    problem = explain_tls_error(cause, host)
    remedy = _CERTIFICATE_REMEDY if problem.is_certificate else _PORT_REMEDY
    return ConnectionProblem(f"TLS with {host} fails: {problem.text}", remedy, 0.0)


def _explain_proxy(cause: BaseException, host: str) -> ConnectionProblem | None:
    if not isinstance(cause, ProxyError | PoolProxyError):
        return None
    for error in _causes(cause):
        if isinstance(error, OSError) and "Tunnel connection failed" in str(error):
            # The proxy's answer is at the end: `Tunnel connection failed: 407 Proxy Authentication Required`.
            answer = str(error).rpartition("failed: ")[2]
            status = "".join(char if char.isprintable() else " " for char in answer)[:80]
            return ConnectionProblem(f"the proxy refuses to connect to {host} ({status})", _PROXY_REMEDY, 0.0)
    return ConnectionProblem(f"the proxy on the way to {host} cannot be reached", _PROXY_REMEDY)


def _explain_name(cause: BaseException, host: str) -> ConnectionProblem | None:
    if not isinstance(cause, socket.gaierror):
        return None
    if cause.errno in _UNKNOWN_NAME:
        return ConnectionProblem(
            f"the name {host} is not known (DNS)",
            "is api_url right, and does this machine resolve names?",
            _UNKNOWN_NAME_SECONDS,
        )
    return ConnectionProblem(f"the name {host} cannot be resolved right now (DNS: {cause.strerror})")


def _explain_connection(cause: BaseException, host: str) -> ConnectionProblem | None:
    if isinstance(cause, ConnectionRefusedError):
        return ConnectionProblem(f"{host} refuses the connection: nothing listens there")
    if isinstance(cause, ConnectTimeout | ConnectTimeoutError):
        return ConnectionProblem(f"no connection to {host} within the time limit: is a firewall in between?")
    if isinstance(cause, ReadTimeoutError | TimeoutError):
        return ConnectionProblem(f"{host} took the request and sent no answer within the time limit")
    # http.client.RemoteDisconnected is a ConnectionResetError.
    if isinstance(cause, ConnectionResetError | BrokenPipeError | ConnectionAbortedError):
        return ConnectionProblem(f"{host} closed the connection without an answer")
    if isinstance(cause, OSError) and cause.errno in _NO_ROUTE:
        return ConnectionProblem(f"there is no route to {host}: is this machine online?")
    return None
