"""Answers requests for which there is no route, and logs what is probably wrong with the URL or the proxy."""

import re
from collections.abc import Collection
from dataclasses import dataclass

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ingest.event import source_of
from ingest.telemetry import REFUSED_REQUESTS

log = structlog.get_logger()

AccountKey = tuple[str, str]

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request was refused.

    `reason` is one of a few words, a metric's label. `source` is the account that was probably meant, ""
    where none was.
    """

    reason: str
    why: str
    source: str = ""


class Refusals:
    """The application's handler of 404 and 405."""

    def __init__(self, accounts: Collection[AccountKey], public_path: str) -> None:
        self._accounts, self._public_path = accounts, public_path

    async def answer(self, request: Request, error: Exception) -> Response:
        """Answer as Starlette does, which tells the caller nothing.

        The path is not logged, because it may hold a secret.
        """
        if not isinstance(error, HTTPException):
            raise error
        refusal = explain(request.method, request.scope["path"], set(self._accounts), self._public_path)
        REFUSED_REQUESTS.labels(refusal.reason).inc()
        event = "delivery.unknown_account" if refusal.reason == "unknown_account" else "request.refused"
        write = log.info if refusal.reason == "unknown_path" else log.warning
        write(event, reason=refusal.reason, source=refusal.source, why=refusal.why, throttle=True)
        return PlainTextResponse(error.detail, error.status_code, headers=error.headers)


def explain(method: str, path: str, accounts: Collection[AccountKey], public_path: str = "") -> Refusal:
    """Explain what is wrong with a request that no route takes. `path` is decoded."""
    parts, prefix = _parts(path), _parts(public_path)
    if prefix and parts[: len(prefix) + 1] == [*prefix, "webhooks"]:
        parts = parts[len(prefix) :]
    for index, part in enumerate(parts):
        account = tuple(parts[index + 1 : index + 3])
        if part == "webhooks" and account in accounts:
            source = source_of(*account)
            has_suffix = len(parts) > index + 3
            reason, why = _explain_account_path(
                method, path, f"/webhooks{source}", has_prefix=index > 0, has_suffix=has_suffix
            )
            return Refusal(reason, why, source)
    if parts[:1] == ["webhooks"] and len(parts) == len(("webhooks", "vendor", "account")):
        _, vendor, name = parts
        if others := [other for other, known_name in accounts if known_name == name]:
            why = f"an account of that name is {others[0]}'s, not another vendor's"
        elif vendor in {known_vendor for known_vendor, _ in accounts}:
            why = "only the vendor is known"
        else:
            why = "the settings have no account of that vendor"
        return Refusal("unknown_account", f"no account has its URL: {why}. `ingest check` prints the URLs")
    return Refusal(
        "unknown_path",
        "there is nothing at its path: health checks ask for /healthz, deliveries are posted to /webhooks/…",
    )


def _parts(path: str) -> list[str]:
    return [part.strip() for part in re.split("/|%2f", path.lower()) if part]


def _explain_account_path(
    method: str, path: str, expected: str, *, has_prefix: bool, has_suffix: bool
) -> tuple[str, str]:
    """Explain a request whose path has that of an account in it. Returns the reason and what to do."""
    if path.endswith(expected) and method != "POST":
        return "method", (
            f"a {method if method in _METHODS else 'request of another method'} "
            "came where deliveries are posted: a redirect on the "
            "way (to https, to another host, to a slash at the end) "
            "makes a GET of a POST, without its body. Give the vendor "
            "the address that the redirect leads to"
        )
    if has_prefix:
        return "path_prefix", (
            f"something stands before {expected} in the path: "
            "a proxy passes on a prefix of its own. Put the "
            "prefix into public_url, or have the proxy strip it"
        )
    difference = (
        "with something after it"
        if has_suffix
        else "with another slash, an encoded slash, a blank or capital letter"
    )
    return (
        "path_form",
        f"the path is {expected} {difference}: register the URL exactly as `ingest check` prints it",
    )
