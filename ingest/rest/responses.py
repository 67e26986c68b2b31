"""The meaning of vendors' responses: their JSON, their errors, and the reason why there is none.

The functions here are pure.
"""

import errno
import json
import math
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson
from requests import Response
from requests.exceptions import ConnectTimeout, ProxyError
from urllib3.exceptions import ConnectTimeoutError, ReadTimeoutError
from urllib3.exceptions import ProxyError as PoolProxyError

from ingest.clock import server_time
from ingest.lenient_json import replace_deep
from ingest.tls import explain_tls_error

# Parsers give up on deeper nesting. Every vendor's records have fewer than ten levels.
_DEEPEST = 200
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONG_NUMBER = re.compile(rb"\d{19}")

_LONGEST_LINE = 200
_REMEDIES = {
    400: (
        "the vendor did not take this request;"
        " correct what it names, or run it again if a page's token was too old"
    ),
    401: "the key is wrong, expired or revoked; put a new one into the secrets file or the environment",
    402: "the vendor's plan does not include this",
    403: "the key may not read this: look at its scopes or permissions, its user's role, and the plan",
    404: "no such thing at the vendor; is api_url right?",
    410: "the vendor has it no longer",
    429: "other programs use this account's allowance too; run it again later",
}

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
# http.client.RemoteDisconnected is a ConnectionResetError.
_CONNECTION_PROBLEMS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((ConnectionRefusedError,), "{host} refuses the connection: nothing listens there"),
    (
        (ConnectTimeout, ConnectTimeoutError),
        "no connection to {host} within the time limit: is a firewall in between?",
    ),
    (
        (ReadTimeoutError, TimeoutError),
        "{host} took the request and sent no answer within the time limit",
    ),
    (
        (ConnectionResetError, BrokenPipeError, ConnectionAbortedError),
        "{host} closed the connection without an answer",
    ),
)


def parse_json(content: bytes) -> Any:
    """Return the value of a JSON document. Raises ValueError when the content is not JSON.

    Half of a surrogate pair becomes a replacement character: programs write such halves when they cut texts
    at a fixed length. A whole number beyond 64 bits becomes text, and so does a value that is nested too
    deeply.
    """
    if not _LONG_NUMBER.search(content):  # orjson would round a long number
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            pass
    text = content.decode(json.detect_encoding(content), "surrogatepass")
    flat_text = replace_deep(text, _DEEPEST, json.dumps)
    value = json.loads(
        flat_text,
        parse_int=_parse_int,
        # A number that is too large for a float would be infinite, which is not JSON.
        parse_float=lambda digits: digits if math.isinf(float(digits)) else float(digits),
        parse_constant=str,
    )
    return orjson.loads(_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", json.dumps(value, ensure_ascii=False)))


def _parse_int(digits: str) -> int | str:
    # `int` would raise for thousands of digits.
    # https://docs.python.org/3/library/stdtypes.html#int-max-str-length
    if len(digits) > len(str(_SMALLEST)):
        return digits
    value = int(digits)
    return value if _SMALLEST <= value <= _LARGEST else digits


def json_object(response: Response) -> dict[str, Any]:
    """Return the JSON object in a response; an empty one where the response is anything else."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def one_line(text: str) -> str:
    """Return a vendor's text as one line of limited length, without characters that control a terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:_LONGEST_LINE]


def error_details(body: Mapping[str, Any]) -> list[str]:
    """Return the details in the body of an error: missing scopes, and wrong parameters with the reasons.

    A detail is a text, such as `events: scheduled_events:read is required`, or an object that names a
    parameter and says what is wrong with it. Vendors that return details use the same or similar names as
    Calendly.
    https://developer.calendly.com/api-docs/overview/errors
    """
    scopes, entries = (
        value if isinstance(value := body.get(name), list) else [] for name in ("required_scopes", "details")
    )
    words = [scope for scope in scopes if isinstance(scope, str)]
    details = [f"required scopes: {', '.join(words)}"] if words else []
    for entry in entries:
        if isinstance(entry, str):
            details.append(entry)
        elif isinstance(entry, dict):
            parts = (
                entry.get("parameter") or entry.get("field") or entry.get("name"),
                entry.get("message") or entry.get("detail"),
            )
            details.append(": ".join(str(part) for part in parts if part))
    return list(filter(None, details))


def remedy_for(status: int) -> str:
    """Return what a person can do about a response with this status."""
    if status < 400:  # noqa: PLR2004 - a success without the expected data
        return "this is not how the API answers; is api_url right?"
    is_server_error = status >= 500  # noqa: PLR2004 - the first server error
    default = (
        "the vendor failed; try again later" if is_server_error else "the vendor did not take this request"
    )
    return _REMEDIES.get(status, default)


def retry_after(response: Response) -> float | None:
    """Return the seconds in the header `Retry-After`; None where it is missing or not readable.

    It has seconds or a date.
    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    with suppress(ValueError, TypeError, OverflowError):  # TypeError: a date without a zone
        at, now = parsedate_to_datetime(value), server_time(response.headers) or datetime.now(UTC)
        return max(0.0, (at - now).total_seconds())
    return None


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


def explain_no_response(error: BaseException, host: str) -> ConnectionProblem:
    """Return what an error of `requests` or of the network means for a request to this host.

    It says why the vendor cannot be reached, and for how long trying again may help.
    """
    causes = list(_causes(error))[::-1]  # the innermost cause says most
    for check in (_explain_tls, _explain_proxy, _explain_name):
        for cause in causes:
            if problem := check(cause, host):
                return problem
    for cause in causes:
        for types, reason in _CONNECTION_PROBLEMS:
            if isinstance(cause, types):
                return ConnectionProblem(reason.format(host=host))
        if isinstance(cause, OSError) and cause.errno in _NO_ROUTE:
            return ConnectionProblem(f"there is no route to {host}: is this machine online?")
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
