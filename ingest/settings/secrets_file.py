"""Changes webhook secrets in the secrets file. Comments are kept, and the file is always complete."""

import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from ingest.errors import ConfigurationError
from ingest.files import replace_private
from ingest.locks import exclusive
from ingest.settings.layers import decode
from ingest.vendors import split_list

_LOCK_SECONDS = 10.0
_PRIVATE = 0o600
_KEY = "webhook_secrets"
_PLACEHOLDER = "nobody-signs-with-this"

Change = Callable[[tuple[str, ...]], list[str]]


class SecretsFile:
    """The file `<config>.secrets.toml`, which may not be there yet. All methods raise ConfigurationError."""

    def __init__(self, path: Path) -> None:
        """Change the file at this path, or the one that a link there leads to."""
        self.path = path.resolve()

    def live(self, account: str) -> tuple[str, ...]:
        """Return the account's webhook secrets that are in the file now, newest first."""
        return self._listed(self._table(self._tree(self._read()), account))

    def add(self, account: str, secret: str, beside: Sequence[str]) -> None:
        """Add a secret as the newest one, before those of the file, else before `beside`.

        It is durable when this returns.
        """
        self._change(account, lambda listed: [secret, *(old for old in (listed or beside) if old != secret)])

    def drop(self, account: str, secrets: Sequence[str]) -> None:
        """Remove secrets, which are then no longer live."""
        self._change(account, lambda listed: [secret for secret in listed if secret not in secrets])

    def check(self, account: str) -> None:
        """Check that a secret can be added, before there is one that is nowhere else."""
        with self._alone():
            text = self._read()
            self._changed(text, account, lambda listed: [_PLACEHOLDER, *listed])
            self._write(text)

    def _change(self, account: str, change: Change) -> None:
        with self._alone():
            self._write(self._changed(self._read(), account, change))

    def _changed(self, text: str, account: str, change: Change) -> str:
        """Return the text with only this change.

        Raises where it is written in a way that cannot be edited safely.
        """
        intended = self._tree(text)
        table = self._table(intended, account)
        table[_KEY] = change(self._listed(table))
        try:
            document: Any = tomlkit.parse(text)
            accounts = document.setdefault("accounts", tomlkit.table(is_super_table=True))
            accounts.setdefault(account, tomlkit.table())[_KEY] = table[_KEY]
            changed = tomlkit.dumps(document)
            parsed = tomllib.loads(changed)
        except (TOMLKitError, tomllib.TOMLDecodeError, AttributeError, TypeError, KeyError, ValueError):
            parsed = None
        if parsed != intended:
            raise ConfigurationError(
                f"{self.path}: the way accounts are written there cannot be changed safely for {account}; "
                "nothing was changed. "
                f"Write each as a table, below a line like [accounts.{account}], or use --print-secrets"
            )
        return changed

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            lock = exclusive(
                self.path.with_name(f"{self.path.name}.lock"),
                _LOCK_SECONDS,
                lambda _: ConfigurationError(f"{self.path} has been locked by another process for too long"),
                private=True,
            )
        except OSError as error:
            raise self._cannot(error) from None
        with lock:
            yield

    def _read(self) -> str:
        try:
            return decode(self.path, self.path.read_bytes())
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise self._unreadable(error) from None

    def _tree(self, text: str) -> dict[str, Any]:
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise self._unreadable(error) from None

    def _table(self, tree: dict[str, Any], account: str) -> dict[str, Any]:
        """Return the account's table, which is added to the tree where there is none."""
        branch: Any = tree
        for number, key in enumerate(("accounts", account), 1):
            branch = branch.setdefault(key, {})
            if not isinstance(branch, dict):
                raise ConfigurationError(
                    f"{self.path}: {'.'.join(('accounts', account)[:number])} must be a table"
                )
        table: dict[str, Any] = branch
        return table

    def _listed(self, table: dict[str, Any]) -> tuple[str, ...]:
        """Return the secrets of a table, which may be a list, or one text with commas."""
        value = table.get(_KEY, ())
        parts = split_list(value) if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
            raise ConfigurationError(f'{self.path}: {_KEY} must be a list of texts, like ["newest", "older"]')
        return tuple(part.strip() for part in parts if part.strip())

    def _write(self, text: str) -> None:
        try:
            replace_private(self.path, text.encode())
        except OSError as error:
            raise self._cannot(error) from None

    def _unreadable(self, error: Exception) -> ConfigurationError:
        return ConfigurationError(f"{self.path} cannot be read: {type(error).__name__}")

    def _cannot(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"{self.path} cannot be written ({error.strerror}): make it writable, or use --print-secrets "
            "and keep the secrets elsewhere"
        )
