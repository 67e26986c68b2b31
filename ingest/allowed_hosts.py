"""Middleware that refuses requests for other host names, against DNS rebinding by web pages."""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ingest.address import is_ip, parse_address

_ANY_PORT = 80
_MISDIRECTED = 421


class AllowedHosts:
    """ASGI middleware that answers 421 to a request for another host name.

    IP addresses are allowed: nobody can make one point here, and probes use them.
    """

    def __init__(self, app: ASGIApp, names: Collection[str], setting: str) -> None:
        """Allow `names`; the answer to others names `setting` as the one to add a host name to."""
        self._app, self._names = app, {"localhost", *map(_normalized, names)}
        self._refusal = PlainTextResponse(
            f"the host name in the URL is not allowed here: add it to {setting}\n", _MISDIRECTED
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request for an allowed host; HTTP/1.0 may leave the host out, which no browser does."""
        if scope["type"] != "http" or all(map(self._is_allowed, Headers(scope=scope).getlist("host"))):
            await self._app(scope, receive, send)
        else:
            await self._refusal(scope, receive, send)

    def _is_allowed(self, host: str) -> bool:
        try:
            name = parse_address(host, _ANY_PORT).host
        except ValueError:
            return False
        return is_ip(name) or _normalized(name) in self._names


def _normalized(name: str) -> str:
    return name.lower().removesuffix(".")
