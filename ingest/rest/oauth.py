"""OAuth: access tokens that are had for an app's credentials, or for a refresh token that is another one after each use."""

import json
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from requests import PreparedRequest, Response

from ingest.errors import ConfigurationError, VendorUnavailable
from ingest.locks import exclusive
from ingest.private_file import replace_private
from ingest.rest import REPEATABLE, Credential, Limits, Manners, Patience
from ingest.rest.adapter import open_session

_EARLY = 60.0  # seconds before its end, or half its life, that a token is renewed: it must live through a request, and clocks differ
_DEFAULT_LIFE = 3600.0


@dataclass(frozen=True, slots=True)
class App:
    """An OAuth app and where it gets tokens.

    `label`, `refusal`, `pause` and `patience` are the account's, as in `Manners`; `refusal` takes a better remedy, or "".
    """

    label: str
    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    refusal: Callable[[Response, str], str]
    pause: Callable[[Response], float | None]
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, slots=True)
class _Token:
    """`renew_at` is in Unix seconds, so that it means the same to every process."""

    access: str = field(repr=False)
    renew_at: float
    refresh: str = field(default="", repr=False)

    def is_good(self) -> bool:
        return self.renew_at > time.time()


class _OAuth(Credential):
    """A bearer token, renewed shortly before its end and when it is refused, by one thread for all."""

    def __init__(self, app: App) -> None:
        super().__init__({})
        self._app = app
        self._lock = threading.Lock()
        self._token: _Token | None = None
        # The answer to a token request may be lost. Asking again helps, or ends in the remedy that a lost single-use token needs anyway.
        again = REPEATABLE | {"POST"}
        manners = Manners(app.label, Limits(), Credential({}), self._refusal, app.pause, app.patience, again)
        self._session, _ = open_session(manners, app.token_url)

    def headers(self) -> Mapping[str, str]:
        token = self._token
        if token is None or not token.is_good():
            with self._lock:
                if self._token is token:
                    self._token = self._another("")
                token = self._token
        return {"Authorization": f"Bearer {token.access}"} if token else {}

    def renew(self, refused: PreparedRequest) -> bool:
        """True also where another thread was quicker."""
        sent = str(refused.headers.get("Authorization", "")).removeprefix("Bearer ")
        with self._lock:
            if self._token is None or self._token.access == sent:
                self._token = self._another(sent)
        return True

    def hidden(self, text: str) -> str:
        token = self._token
        for secret in (
            self._app.client_secret,
            token.access if token else "",
            token.refresh if token else "",
        ):
            text = text.replace(secret, "…") if secret else text
        return text

    @abstractmethod
    def _another(self, refused: str) -> _Token:
        """One that is good, and not the one that was refused. Raises VendorUnavailable and VendorRefused."""

    def _ask(self, **form: str) -> _Token:
        """https://www.rfc-editor.org/rfc/rfc6749#section-5.1"""
        fields = {**form, "client_id": self._app.client_id, "client_secret": self._app.client_secret}
        response = self._session.post(
            self._app.token_url, data=fields, headers={"Accept": "application/json"}
        )
        told = response.json() if _is_object(response) else {}
        access = told.get("access_token")
        if not isinstance(access, str) or not access:
            raise VendorUnavailable(f"{self._app.label}: the token endpoint answered without an access_token")
        refresh = told.get("refresh_token")
        return _Token(access, _renew_at(told.get("expires_in")), refresh if isinstance(refresh, str) else "")

    def _refusal(self, response: Response) -> str:
        return self.hidden(f"no token: {self._app.refusal(response, self._remedy(response))}")

    def _remedy(self, response: Response) -> str:  # noqa: ARG002 - none better than the account's
        return ""


class ClientCredentials(_OAuth):
    """For the app itself. https://www.rfc-editor.org/rfc/rfc6749#section-4.4"""

    def _another(self, refused: str) -> _Token:  # noqa: ARG002 - a new one is never the old one
        return self._ask(grant_type="client_credentials")


class RotatingTokens(_OAuth):
    """For a user, with refresh tokens of which each can be used once. https://www.rfc-editor.org/rfc/rfc6749#section-6

    The newest pair is in `file`, which the account's other processes read too, and is there before it is used: lost,
    somebody would have to authorise the app again. `seed` is the settings' refresh token, the first of the chain; a new
    seed starts a new chain. `setting` is where a person puts it.
    """

    def __init__(self, app: App, seed: str, file: Path, setting: str) -> None:
        super().__init__(app)
        self._seed = seed
        self._file = file
        self._setting = setting

    def _another(self, refused: str) -> _Token:
        with self._alone():
            kept = self._kept()
            if kept and kept.is_good() and kept.access != refused:
                return kept
            refresh = kept.refresh if kept else self._seed
            token = self._ask(grant_type="refresh_token", refresh_token=refresh)
            return self._keep(replace(token, refresh=token.refresh or refresh))

    def hidden(self, text: str) -> str:
        """Of the settings' token too."""
        return super().hidden(text).replace(self._seed, "…")

    def _remedy(self, response: Response) -> str:
        """https://www.rfc-editor.org/rfc/rfc6749#section-5.2"""
        told = response.json() if _is_object(response) else {}
        if told.get("error") == "invalid_grant":
            return f"the refresh token was used elsewhere or revoked; authorise the app again and set {self._setting} to the new one"
        return super()._remedy(response)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Across processes. Raises ConfigurationError before a token is spent that could not be kept."""
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = exclusive(
                self._file.with_name(f"{self._file.name}.lock"),
                self._app.patience.busy,
                lambda _: VendorUnavailable(
                    f"{self._app.label}: another process has been renewing the token for too long"
                ),
                purpose=f"{self._app.label}: another process is renewing the token",
                private=True,
            )
        except OSError as error:
            raise self._cannot_keep(error) from None
        with lock:
            yield

    def _cannot_keep(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"{self._app.label}: tokens cannot be kept in {self._file.parent} ({error.strerror})"
        )

    def _kept(self) -> _Token | None:
        """What the file has of this seed's chain."""
        try:
            found = json.loads(self._file.read_bytes())
            if found["seed"] == self._seed_digest():
                return _Token(
                    str(found["access_token"]), float(found["renew_at"]), str(found["refresh_token"])
                )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return None

    def _keep(self, token: _Token) -> _Token:
        """All of it or nothing, whenever the power goes."""
        pair = {
            "access_token": token.access,
            "renew_at": token.renew_at,
            "refresh_token": token.refresh,
            "seed": self._seed_digest(),
        }
        try:
            replace_private(self._file, json.dumps(pair).encode())
        except OSError as error:
            raise self._cannot_keep(error) from None
        return token

    def _seed_digest(self) -> str:
        return sha256(self._seed.encode()).hexdigest()


def _renew_at(expires_in: Any) -> float:
    try:
        life = max(0.0, float(expires_in))
    except (TypeError, ValueError):
        life = _DEFAULT_LIFE
    return time.time() + life - min(_EARLY, life / 2)


def _is_object(response: Response) -> bool:
    try:
        return isinstance(response.json(), dict)
    except (ValueError, RecursionError):
        return False
