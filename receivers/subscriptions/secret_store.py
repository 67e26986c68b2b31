"""Where an account's webhook secrets are kept: in the secrets file, or with whoever reads what is printed."""

from collections.abc import Callable, Sequence
from typing import Protocol

from ingest.errors import ConfigurationError
from ingest.settings.environment import variable_name
from ingest.settings.secrets_file import SecretsFile
from ingest.settings.sources import is_above_file
from ingest.vendors import AccountSettings


class Keyring(Protocol):
    """One account's. Everything raises ConfigurationError."""

    def live(self) -> tuple[str, ...]:
        """Newest first."""

    def check(self) -> None:
        """That one can be added, before there is one."""

    def add(self, secret: str) -> None:
        """Live, and kept, when it returns."""

    def drop(self, secrets: Sequence[str]) -> None:
        """No longer live."""


class FileKeyring:
    """As receivers have it: they see changes of the file at the next delivery."""

    def __init__(self, settings: AccountSettings, file: SecretsFile) -> None:
        self._settings = settings
        self._file = file

    def live(self) -> tuple[str, ...]:
        """Newest first."""
        if is_above_file("accounts", self._settings.name, "webhook_secrets"):
            return self._settings.live_secrets()
        return self._file.live(self._settings.name) or self._settings.live_secrets()

    def check(self) -> None:
        """Raises before there is a secret that cannot be kept."""
        if is_above_file("accounts", self._settings.name, "webhook_secrets"):
            raise ConfigurationError(
                f"accounts.{self._settings.name}.webhook_secrets is in the environment or a mounted file, which the secrets file cannot"
                " change: use --print-secrets, and put what it prints before the others there; or take it out there"
            )
        self._file.check(self._settings.name)

    def add(self, secret: str) -> None:
        """Durable when it returns."""
        self.check()
        self._file.add(self._settings.name, secret, self._settings.live_secrets())

    def drop(self, secrets: Sequence[str]) -> None:
        """Out of the file."""
        self.check()
        self._file.drop(self._settings.name, secrets)


class PrintedKeyring:
    """For a secret manager: what is added is shown, once, to be put before the others by whoever sees it."""

    def __init__(self, settings: AccountSettings, show: Callable[[str, str], None]) -> None:
        """`show` is given a variable and its value."""
        self._live = settings.live_secrets()
        self._variable = variable_name("accounts", settings.name, "webhook_secrets")
        self._show = show

    def live(self) -> tuple[str, ...]:
        """Those of the settings and those shown."""
        return self._live

    def check(self) -> None:
        """Whoever asked for it reads it."""

    def add(self, secret: str) -> None:
        """Shown, with those it is to stand before."""
        self._live = (secret, *self._live)
        self._show(self._variable, ",".join(self._live))

    def drop(self, secrets: Sequence[str]) -> None:
        """What is left is shown."""
        self._live = tuple(kept for kept in self._live if kept not in secrets)
        self._show(self._variable, ",".join(self._live))
