"""The store of an account's webhook secrets: the secrets file, or whoever reads what is printed."""

from collections.abc import Callable, Sequence
from typing import Protocol

from ingest.errors import ConfigurationError
from ingest.settings.layers import variable_name
from ingest.settings.secrets_file import SecretsFile
from ingest.settings.sources import current_secrets_path, is_above_file
from ingest.vendors import AccountSettings


class SecretStore(Protocol):
    """The webhook secrets of one account. Every method raises ConfigurationError."""

    def live(self) -> tuple[str, ...]:
        """Return the secrets that receivers accept, the newest first."""

    def check(self) -> None:
        """Raise an error if a secret could not be added, before there is one."""

    def add(self, secret: str) -> None:
        """Make a secret the newest live one, durably."""

    def drop(self, secrets: Sequence[str]) -> None:
        """Remove secrets, which receivers then no longer accept."""


class FileSecretStore:
    """The secrets file, whose changes receivers see at the next delivery."""

    def __init__(self, settings: AccountSettings, file: SecretsFile | None = None) -> None:
        """Use the secrets file of the settings that are in use, unless another is given."""
        self._settings = settings
        self._file = file or SecretsFile(current_secrets_path())

    def live(self) -> tuple[str, ...]:
        """Return the secrets that receivers accept, the newest first."""
        if is_above_file("accounts", self._settings.name, "webhook_secrets"):
            return self._settings.live_secrets()
        return self._file.live(self._settings.name) or self._settings.live_secrets()

    def check(self) -> None:
        """Raise ConfigurationError where the secrets file cannot take effect or cannot be written."""
        if is_above_file("accounts", self._settings.name, "webhook_secrets"):
            raise ConfigurationError(
                f"accounts.{self._settings.name}.webhook_secrets is in the environment or a mounted file,"
                " which the secrets file cannot change: use --print-secrets and put the printed secret "
                "first there, or remove the setting there"
            )
        self._file.check(self._settings.name)

    def add(self, secret: str) -> None:
        """Make a secret the newest live one, durably."""
        self.check()
        self._file.add(self._settings.name, secret, self._settings.live_secrets())

    def drop(self, secrets: Sequence[str]) -> None:
        """Remove secrets from the file."""
        self.check()
        self._file.drop(self._settings.name, secrets)


class PrintedSecretStore:
    """A secret manager: what is added is shown once, and whoever sees it puts it before the other secrets."""

    def __init__(self, settings: AccountSettings, show: Callable[[str, str], None]) -> None:
        """Call `show` with a variable and its value."""
        self._live = settings.live_secrets()
        self._variable = variable_name("accounts", settings.name, "webhook_secrets")
        self._show = show

    def live(self) -> tuple[str, ...]:
        """Return the secrets of the settings and those that were shown, the newest first."""
        return self._live

    def check(self) -> None:
        """Do nothing: whoever asked for the secrets reads them."""

    def add(self, secret: str) -> None:
        """Show a secret before those that are live already."""
        self._live = (secret, *self._live)
        self._show(self._variable, ",".join(self._live))

    def drop(self, secrets: Sequence[str]) -> None:
        """Show the secrets that remain."""
        self._live = tuple(secret for secret in self._live if secret not in secrets)
        self._show(self._variable, ",".join(self._live))
