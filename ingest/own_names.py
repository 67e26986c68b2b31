"""Which names a listener goes by, so that no page in a browser reaches it by a name of its own that it has let point here (DNS rebinding)."""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ingest.address import is_ip, parse_address

_ANY_PORT = 80
_MISDIRECTED = 421


class OwnNames:
    """Answers 421 to a request for another host. An IP address is no name that anybody can let point here; probes use one."""

    def __init__(self, app: ASGIApp, names: Collection[str], setting: str) -> None:
        """`setting`: where a name is added."""
        self._app, self._names = app, {"localhost", *map(_plain, names)}
        self._refusal = PlainTextResponse(f"this listener has another name: add the one in the URL to {setting}\n", _MISDIRECTED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """HTTP/1.0 may leave the host out, which no browser does."""
        if scope["type"] != "http" or all(map(self._is_own, Headers(scope=scope).getlist("host"))):
            await self._app(scope, receive, send)
        else:
            await self._refusal(scope, receive, send)

    def _is_own(self, host: str) -> bool:
        try:
            name = parse_address(host, _ANY_PORT).host
        except ValueError:
            return False
        return is_ip(name) or _plain(name) in self._names


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")
