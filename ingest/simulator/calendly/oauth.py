"""Calendly's OAuth tokens: access tokens that expire, refresh tokens that are good once.

https://developer.calendly.com/docs/authentication/refresh-token-rotation-guide
"""

import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qs

from starlette.responses import Response

from ingest.simulator.api import Allowed, Counter, answer, credential
from ingest.simulator.calendly.webhooks import instant
from ingest.simulator.dialect import Dialect


class Tokens:
    """One app's, for one account. `seconds` is how long an access token is good, those given out before included.

    `asked` counts against the allowance of token requests. https://developer.calendly.com/api-docs/overview/rate-limits
    """

    def __init__(self, dialect: Dialect, owner: Mapping[str, str]) -> None:
        self.client_id = credential(dialect, "client_id")
        self.client_secret = credential(dialect, "client_secret")
        self.refresh_token = credential(dialect, "refresh_token")
        self.seconds = 7200.0
        self.asked = Counter(Allowed(8, 60))
        self._owner = owner
        self._given: dict[str, float] = {}

    def are_good(self, access_token: str) -> bool:
        """Whether it was given out, and its time is not over."""
        given_at = self._given.get(access_token)
        return given_at is not None and time.monotonic() < given_at + self.seconds

    def expire(self) -> None:
        """As if the time of every access token given out so far were over."""
        self._given.clear()

    def answer_to(self, form: bytes, too_many: Callable[[float], Response]) -> Response:
        """The answer of the token endpoint."""
        if (seconds := self.asked.take()) is not None:
            return too_many(seconds)
        given = {name: values[0] for name, values in parse_qs(form.decode("utf-8", "replace")).items()}
        if (given.get("client_id"), given.get("client_secret")) != (self.client_id, self.client_secret):
            return _refused(401, "invalid_client", "Client authentication failed")
        if given.get("grant_type") != "refresh_token":
            return _refused(400, "unsupported_grant_type", "The authorization grant type is not supported")
        if given.get("refresh_token") != self.refresh_token:
            return _refused(400, "invalid_grant", "The refresh token is invalid, expired or revoked")
        return answer(self._renewed())

    def _renewed(self) -> dict[str, object]:
        access_token, self.refresh_token = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self._given[access_token] = time.monotonic()
        return {
            "token_type": "Bearer",
            "access_token": access_token,
            "refresh_token": self.refresh_token,
            "scope": "scheduled_events:read",
            "created_at": instant(datetime.now(UTC)),
            "expires_in": int(self.seconds),
            **self._owner,
        }


def _refused(status: int, error: str, description: str) -> Response:
    return answer({"error": error, "error_description": description}, status)
