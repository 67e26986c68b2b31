"""Changing webhook secrets in the secrets file: comments stay, and nobody ever sees half of it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomlkit
from filelock import FileLock
from filelock import Timeout as LockTimeout
from tomlkit.exceptions import ParseError

from ingest.errors import ConfigurationError
from ingest.private_file import replace_private

_LOCK_SECONDS = 10.0
_PRIVATE = 0o600
_KEY = "webhook_secrets"


class SecretsFile:
    """`<config>.secrets.toml`, which may not be there yet. Everything raises ConfigurationError."""

    def __init__(self, path: Path) -> None:
        """What is a link stays one."""
        self.path = path.resolve()

    def live(self, account: str) -> tuple[str, ...]:
        """The account's webhook secrets that are in the file now, newest first."""
        return _listed(self._read(), account)

    def add(self, account: str, secret: str, beside: Sequence[str]) -> None:
        """As the newest one, before those of the file, else before `beside`; durable when it returns."""
        self._change(account, lambda listed: [secret, *(old for old in (listed or beside) if old != secret)])

    def drop(self, account: str, secrets: Sequence[str]) -> None:
        """These are no longer live."""
        self._change(account, lambda listed: [kept for kept in listed if kept not in secrets])

    def check(self) -> None:
        """That it can be written, before there is a secret that is nowhere else."""
        with self._alone():
            self._write(self._read())

    def _change(self, account: str, change: Callable[[tuple[str, ...]], list[str]]) -> None:
        with self._alone():
            document = self._read()
            accounts = document.setdefault("accounts", tomlkit.table(is_super_table=True))
            table = accounts.setdefault(account, tomlkit.table())
            table[_KEY] = change(_listed(document, account))
            self._write(document)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            lock = FileLock(f"{self.path}.lock", timeout=_LOCK_SECONDS, mode=_PRIVATE)
            lock.acquire()
        except LockTimeout:
            raise ConfigurationError(f"{self.path} is being changed by another process for too long") from None
        except OSError as error:
            raise self._cannot(error) from None
        try:
            yield
        finally:
            lock.release()

    def _read(self) -> Any:
        try:
            return tomlkit.parse(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return tomlkit.document()
        except (OSError, UnicodeDecodeError, ParseError) as error:
            raise ConfigurationError(f"{self.path} cannot be read: {type(error).__name__}") from None

    def _write(self, document: Any) -> None:
        try:
            replace_private(self.path, tomlkit.dumps(document).encode())
        except OSError as error:
            raise self._cannot(error) from None

    def _cannot(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"{self.path} cannot be written ({error.strerror}): make it so, or use --print-secrets and keep them elsewhere"
        )


def _listed(document: Any, account: str) -> tuple[str, ...]:
    """A list, or one text with commas, as settings may have them."""
    found = document.get("accounts", {}).get(account, {}).get(_KEY, ())
    parts = found.split(",") if isinstance(found, str) else found
    return tuple(str(part).strip() for part in parts if str(part).strip())
