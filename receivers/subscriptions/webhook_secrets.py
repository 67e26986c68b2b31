"""Webhook secrets: where they are stored, when old ones may go, and both steps of a rotation by hand."""

import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from ingest.clock import is_future
from ingest.errors import ConfigurationError
from ingest.settings import Settings
from ingest.settings.layers import variable_name
from ingest.settings.secrets_file import SecretsFile
from ingest.settings.sources import current_secrets_path, is_above_file
from ingest.vendors import AccountSettings, AnyAccount
from ingest.vendors.subscriptions import Subscriptions, fingerprint
from ingest.warehouse.deliveries import last_signed
from receivers.subscriptions.state import open_state

SECRET_BYTES = 32


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


def unused_secrets(live: Sequence[str], used: Collection[str]) -> list[str]:
    """Return the live secrets, the newest first, that no subscription has; the newest is never among them.

    `used` are fingerprints.
    """
    return [secret for secret in live[1:] if fingerprint(secret) not in used]


def reason_to_wait(
    since: datetime,
    signed_by_new: datetime | None,
    signed_by_old: datetime | None,
    retried: timedelta,
    now: datetime,
) -> str:
    """Return why the old secrets may not go yet, "" when they may.

    `since` is since when the newest secret is the newest. The other times are when the last delivery came
    that it, or an old one, had signed. What an old one has signed is `retried` for so long.
    """
    quiet_at = max(filter(None, (since, signed_by_old))) + retried
    if now < quiet_at:
        return f"until {quiet_at:%Y-%m-%d %H:%M} UTC the vendor may send again what an old secret signed"
    if signed_by_new is None:
        return "no delivery signed with the new secret was loaded since the rotation"
    return ""


class Rotation:
    """The rotation of one account's webhook secrets. All methods raise ConfigurationError."""

    def __init__(self, settings: Settings, account: AnyAccount, store: SecretStore) -> None:
        self._settings = settings
        self._account = account
        self._store = store
        self._file = open_state(settings, account)

    def begin_by_hand(self) -> None:
        """Make a new secret live, which a person then sets at the vendor."""
        secret = secrets.token_urlsafe(SECRET_BYTES)
        with self._file.lock():
            self._store.add(secret)
            self._file.write(self._file.read().with_newest(fingerprint(secret)))

    def finish_by_hand(self, *, force: bool) -> list[str]:
        """Drop all secrets but the newest, and return them."""
        with self._file.lock():
            return self.drop_old((), Subscriptions.retried, datetime.now(UTC), force=force)

    def drop_old(self, used: Collection[str], retried: timedelta, now: datetime, *, force: bool) -> list[str]:
        """Drop the secrets that no subscription has, and return them. Hold the lock of the account's state.

        `used` are the fingerprints of those that subscriptions have. `retried` is for how long the vendor
        retries a delivery, `now` the time by its clock. Raises ConfigurationError while an old secret may
        still be seen; `force` does not wait for that.
        """
        live = self._store.live()
        old = unused_secrets(live, used)
        if not old:
            return []
        state, newest = self._file.read(), fingerprint(live[0])
        since = state.newest_since(newest)
        if since is None or is_future(since, now):
            self._file.write(replace(state, newest_secret=newest, rotated_at=now))
            raise ConfigurationError(
                f"account {self._account.name}: it was not known since when the newest secret is the "
                "first. It is recorded now: try again later"
            )
        # Rows tell secrets by their places among the account's secrets, from 1 on.
        places = [str(place) for place, secret in enumerate(live, 1) if secret in old]
        if not force:
            signed = last_signed(self._settings, self._account.vendor, self._account.name, since, places)
            if reason := reason_to_wait(since, *signed, retried, now):
                raise ConfigurationError(f"account {self._account.name}: {reason}; wait, or use --force")
        self._store.drop(old)
        return old
