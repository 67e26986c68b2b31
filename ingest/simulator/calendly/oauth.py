"""Calendly's OAuth tokens: access tokens that expire, and refresh tokens that can be used once.

https://developer.calendly.com/docs/authentication/refresh-token-rotation-guide
"""

import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qs

from starlette.responses import Response

from ingest.simulator.account import SimulatedAccount
from ingest.simulator.api import RateLimit, RateLimiter, derive_credential, json_response
from ingest.simulator.calendly.webhooks import format_instant


class OAuthTokens:
    """The tokens of an OAuth app for one account.

    `seconds` is the lifetime of access tokens, including those issued before it was set. `limiter` counts the
    requests for tokens. https://developer.calendly.com/api-docs/overview/rate-limits
    """

    def __init__(self, account: SimulatedAccount, owner: Mapping[str, str]) -> None:
        self.client_id = derive_credential(account, "client_id")
        self.client_secret = derive_credential(account, "client_secret")
        self.refresh_token = derive_credential(account, "refresh_token")
        self.seconds = 7200.0
        self.limiter = RateLimiter(RateLimit(8, 60))
        self._owner = owner
        self._issued_at: dict[str, float] = {}

    def is_valid(self, access_token: str) -> bool:
        """Say whether the token was issued here and has not expired."""
        issued_at = self._issued_at.get(access_token)
        return issued_at is not None and time.monotonic() < issued_at + self.seconds

    def expire(self) -> None:
        """Expire all access tokens issued so far."""
        self._issued_at.clear()

    def respond(self, form: bytes, too_many: Callable[[float], Response]) -> Response:
        """Return the token endpoint's response to a form."""
        if (seconds := self.limiter.take()) is not None:
            return too_many(seconds)
        fields = {name: values[0] for name, values in parse_qs(form.decode("utf-8", "replace")).items()}
        if (fields.get("client_id"), fields.get("client_secret")) != (self.client_id, self.client_secret):
            return _oauth_error(401, "invalid_client", "Client authentication failed")
        if fields.get("grant_type") != "refresh_token":
            return _oauth_error(
                400, "unsupported_grant_type", "The authorization grant type is not supported"
            )
        if fields.get("refresh_token") != self.refresh_token:
            return _oauth_error(400, "invalid_grant", "The refresh token is invalid, expired or revoked")
        return json_response(self._renew())

    def _renew(self) -> dict[str, object]:
        access_token, self.refresh_token = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self._issued_at[access_token] = time.monotonic()
        return {
            "token_type": "Bearer",
            "access_token": access_token,
            "refresh_token": self.refresh_token,
            "scope": "scheduled_events:read",
            "created_at": format_instant(datetime.now(UTC)),
            "expires_in": int(self.seconds),
            **self._owner,
        }


def _oauth_error(status: int, error: str, description: str) -> Response:
    return json_response({"error": error, "error_description": description}, status)
