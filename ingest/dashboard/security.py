"""Who may call the dashboard: the token, the session of a browser, and the proof that a form is our own."""

import hmac
import secrets
import time
from collections.abc import Mapping
from hashlib import sha256
from urllib.parse import parse_qsl, urlsplit

from pydantic import SecretStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SESSION_COOKIE = "ingest_session"
_VISITOR_COOKIE = "ingest_visitor"
_SESSION_SECONDS = 12 * 3600
_LARGEST_FORM = 256 * 1024
_OPEN_PATHS = ("/login", "/static/", "/healthz")
_HEADERS = {
    # Nothing inline and nothing from elsewhere: a stranger's text that became markup could still do nothing.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    # Not `no-referrer`, with which browsers send `Origin: null` with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware that lets in who has the token, refuses what other sites send, and adds headers.

    Without a token, the listener is on loopback, and everybody on this machine is let in.
    """

    def __init__(self, app: ASGIApp, token: SecretStr | None) -> None:
        self._app = app
        self._token = token.get_secret_value().encode() if token else b""
        self._form_key = secrets.token_bytes(32)  # forms are as old as the process at most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request that may be answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        scope["guard"] = self
        visitor = request.cookies.get(_VISITOR_COOKIE) or secrets.token_urlsafe(18)
        scope["visitor"] = visitor
        is_new = _VISITOR_COOKIE not in request.cookies

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if is_new and "text/html" in headers.get("content-type", ""):
                    headers.append("set-cookie", _cookie(request, _VISITOR_COOKIE, visitor))
            await send(message)

        refusal = self._refuse(request)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refuse(self, request: Request) -> Response | None:
        """Return the answer to a request that is not let in; None where it is."""
        if _is_from_elsewhere(request.headers):
            return _refusal(403, "another site sent this request")
        if request.url.path.startswith(_OPEN_PATHS) or self._is_known(request):
            return None
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("/login", 303)
        return _refusal(401, "give dashboard.token as a bearer token")

    def _is_known(self, request: Request) -> bool:
        return not self._token or self.has_bearer(request) or self._has_session(request)

    def has_bearer(self, request: Request) -> bool:
        """Return whether the request has the token in its header, which no browser sends by itself."""
        given = request.headers.get("authorization", "").encode()
        return bool(self._token) and hmac.compare_digest(given, b"Bearer " + self._token)

    def _has_session(self, request: Request) -> bool:
        expires, _, signature = request.cookies.get(SESSION_COOKIE, "").partition(".")
        is_ours = hmac.compare_digest(signature.encode(), self._sign_session(expires).encode())
        return is_ours and int(expires) > time.time()

    def _sign_session(self, expires: str) -> str:
        # By the token alone, so that a session outlives a restart, and no change of the token.
        return hmac.new(b"session" + self._token, expires.encode(), sha256).hexdigest()

    def log_in(self, request: Request, token: str) -> str | None:
        """Return the cookie of a new session; None for a wrong token."""
        if not self._token or not hmac.compare_digest(token.strip().encode(), self._token):
            return None
        expires = str(int(time.time()) + _SESSION_SECONDS)
        value = f"{expires}.{self._sign_session(expires)}"
        return _cookie(request, SESSION_COOKIE, value, _SESSION_SECONDS)

    def form_token(self, visitor: str) -> str:
        """Return what our own forms prove themselves with, to this visitor's browser only."""
        return hmac.new(self._form_key, visitor.encode(), sha256).hexdigest()


async def read_form(request: Request) -> Mapping[str, list[str]]:
    """Return the fields of a form of ours, each with all its values.

    Raises HTTPException for one that is too large, or that no page of ours has sent. A caller with the token
    in its header needs no such proof.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_FORM:
            raise HTTPException(413, "the form is too large: choose fewer at once")
    fields: dict[str, list[str]] = {}
    for name, value in parse_qsl(body.decode(errors="replace"), keep_blank_values=True):
        fields.setdefault(name, []).append(value)
    guard: Guard = request.scope["guard"]
    proof = next(iter(fields.pop("form_token", [])), "")
    expected = guard.form_token(request.scope["visitor"])
    if not guard.has_bearer(request) and not hmac.compare_digest(proof.encode(), expected.encode()):
        raise HTTPException(403, "this page is older than the dashboard that answers: load it again")
    return fields


def _is_from_elsewhere(headers: Headers) -> bool:
    """Return whether another site made the browser send this, unless a person followed a link."""
    site, mode = headers.get("sec-fetch-site", ""), headers.get("sec-fetch-mode", "")
    if site in {"cross-site", "same-site"} and mode != "navigate":
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host", "")


def _refusal(status: int, why: str) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None  # noqa: PLR2004 - as HTTP says
    return JSONResponse({"error": why}, status, headers)


def _cookie(request: Request, name: str, value: str, seconds: int | None = None) -> str:
    response = Response()
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        httponly=True,
        samesite="lax",  # with `strict`, who follows a link would have to log in again
        secure=request.url.scheme == "https",
    )
    return response.headers["set-cookie"]
