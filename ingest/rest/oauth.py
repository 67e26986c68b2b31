"""OAuth access tokens, obtained with an app's own credentials or with single-use refresh tokens."""

import json
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from requests import PreparedRequest, Response

from ingest.errors import ConfigurationError, VendorUnavailable
from ingest.files import replace_private
from ingest.locks import exclusive
from ingest.rest import RETRIED_METHODS, Credential, Limits, RequestPolicy, RetryBudget
from ingest.rest.adapter import open_session
from ingest.rest.responses import json_object

# A token is renewed so many seconds before its end, or after half its life if that is later. It must outlive
# a request, and clocks differ.
_EARLY_SECONDS = 60.0
_DEFAULT_LIFE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class OAuthApp:
    """An OAuth app, with the URL where it gets tokens.

    `label`, `describe_error`, `retry_after` and `budget` are the account's, as in `RequestPolicy`.
    `describe_error` also takes a better remedy, or "".
    """

    label: str
    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    describe_error: Callable[[Response, str], str]
    retry_after: Callable[[Response], float | None]
    budget: RetryBudget = field(default_factory=RetryBudget)


@dataclass(frozen=True, slots=True)
class _Token:
    """An access token. `renew_at` is in Unix seconds, so that it means the same to every process."""

    access: str = field(repr=False)
    renew_at: float
    refresh: str = field(default="", repr=False)

    def is_valid(self) -> bool:
        return self.renew_at > time.time()


class _OAuth(Credential):
    """A bearer token. One thread renews it for all threads, shortly before its end or when it is refused."""

    def __init__(self, app: OAuthApp) -> None:
        super().__init__({})
        self._app = app
        self._lock = threading.Lock()
        self._token: _Token | None = None
        # The response to a token request may be lost. A second request either helps, or ends in the remedy
        # that a lost single-use token needs anyway.
        methods = RETRIED_METHODS | {"POST"}
        policy = RequestPolicy(
            app.label, Limits(), Credential({}), self._describe_error, app.retry_after, app.budget, methods
        )
        self._session, _ = open_session(policy, app.token_url)

    def headers(self) -> Mapping[str, str]:
        token = self._token
        if token is None or not token.is_valid():
            with self._lock:
                if self._token is token:
                    self._token = self._get_token("")
                token = self._token
        return {"Authorization": f"Bearer {token.access}"} if token else {}

    def renew(self, refused: PreparedRequest) -> bool:
        """Get another token, unless another thread has got one since the request was sent. Return True."""
        access = str(refused.headers.get("Authorization", "")).removeprefix("Bearer ")
        with self._lock:
            if self._token is None or self._token.access == access:
                self._token = self._get_token(access)
        return True

    def redact(self, text: str) -> str:
        token = self._token
        for secret in (
            self._app.client_secret,
            token.access if token else "",
            token.refresh if token else "",
        ):
            text = text.replace(secret, "…") if secret else text
        return text

    @abstractmethod
    def _get_token(self, refused: str) -> _Token:
        """Return a valid token other than the refused one.

        Raises VendorUnavailable and VendorRefused.
        """

    def _request_token(self, **form: str) -> _Token:
        """Request a token with this form. Raises VendorUnavailable when the response has no access token.

        https://www.rfc-editor.org/rfc/rfc6749#section-5.1
        """
        fields = {**form, "client_id": self._app.client_id, "client_secret": self._app.client_secret}
        response = self._session.post(
            self._app.token_url, data=fields, headers={"Accept": "application/json"}
        )
        body = json_object(response)
        access = body.get("access_token")
        if not isinstance(access, str) or not access:
            raise VendorUnavailable(f"{self._app.label}: the token endpoint answered without an access_token")
        try:
            life = max(0.0, float(body.get("expires_in", "")))
        except (TypeError, ValueError):
            life = _DEFAULT_LIFE_SECONDS
        renew_at = time.time() + life - min(_EARLY_SECONDS, life / 2)
        refresh = body.get("refresh_token")
        return _Token(access, renew_at, refresh if isinstance(refresh, str) else "")

    def _describe_error(self, response: Response) -> str:
        return self.redact(f"no token: {self._app.describe_error(response, self._remedy(response))}")

    def _remedy(self, response: Response) -> str:  # noqa: ARG002 - for grants that know a better remedy
        """Return a better remedy than the account's, or ""."""
        return ""


class ClientCredentials(_OAuth):
    """Tokens for the app itself.

    https://www.rfc-editor.org/rfc/rfc6749#section-4.4
    """

    def _get_token(self, refused: str) -> _Token:  # noqa: ARG002 - a new token is never the refused one
        return self._request_token(grant_type="client_credentials")


class RotatingTokens(_OAuth):
    """Tokens for a user, with refresh tokens that can be used once each.

    https://www.rfc-editor.org/rfc/rfc6749#section-6

    The newest pair of tokens is in `file`, which the account's other processes read too. A pair is stored
    before it is used, because after its loss somebody would have to authorise the app again. `seed` is the
    refresh token in the settings, which is the first of a chain. A new seed starts a new chain. `setting` is
    the name of the setting that contains the seed.
    """

    def __init__(self, app: OAuthApp, seed: str, file: Path, setting: str) -> None:
        super().__init__(app)
        self._seed = seed
        self._file = _TokenFile(app, seed, file)
        self._setting = setting

    def _get_token(self, refused: str) -> _Token:
        with self._file.locked():
            current = self._file.read()
            if current and current.is_valid() and current.access != refused:
                return current
            refresh = current.refresh if current else self._seed
            token = self._request_token(grant_type="refresh_token", refresh_token=refresh)
            successor = replace(token, refresh=token.refresh or refresh)
            self._file.write(successor)
            return successor

    def redact(self, text: str) -> str:
        """Return the text without tokens, including the refresh token in the settings."""
        return super().redact(text).replace(self._seed, "…")

    def _remedy(self, response: Response) -> str:
        """Return what to do about a refresh token that was used or revoked; "" for other errors.

        https://www.rfc-editor.org/rfc/rfc6749#section-5.2
        """
        if json_object(response).get("error") == "invalid_grant":
            return (
                "the refresh token was used elsewhere or revoked; "
                f"authorise the app again and set {self._setting} to the new one"
            )
        return super()._remedy(response)


class _TokenFile:
    """The file with the newest pair of tokens of a seed's chain, which all processes of an account share."""

    def __init__(self, app: OAuthApp, seed: str, path: Path) -> None:
        self._app = app
        self._seed_digest = sha256(seed.encode()).hexdigest()
        self._path = path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the file against other processes.

        Raises ConfigurationError when the folder is not writable, before a token is used whose successor
        could not be stored.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = exclusive(
                self._path.with_name(f"{self._path.name}.lock"),
                self._app.budget.busy,
                lambda _: VendorUnavailable(
                    f"{self._app.label}: another process has been renewing the token for too long"
                ),
                purpose=f"{self._app.label}: another process is renewing the token",
                private=True,
            )
        except OSError as error:
            raise self._not_writable(error) from None
        with lock:
            yield

    def read(self) -> _Token | None:
        """Return the stored token of this seed's chain; None when the file does not contain one."""
        try:
            pair = json.loads(self._path.read_bytes())
            if pair["seed"] == self._seed_digest:
                return _Token(str(pair["access_token"]), float(pair["renew_at"]), str(pair["refresh_token"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return None

    def write(self, token: _Token) -> None:
        """Store a token. The write is atomic, even if the power fails. Raises ConfigurationError."""
        pair = {
            "access_token": token.access,
            "renew_at": token.renew_at,
            "refresh_token": token.refresh,
            "seed": self._seed_digest,
        }
        try:
            replace_private(self._path, json.dumps(pair).encode())
        except OSError as error:
            raise self._not_writable(error) from None

    def _not_writable(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"{self._app.label}: tokens cannot be kept in {self._path.parent} ({error.strerror})"
        )
