"""The accounts as the secrets file has them now: during a rotation a new secret is live at the next delivery, without a restart."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import structlog

from ingest.errors import ConfigurationError
from ingest.vendors import AnyVendor

log = structlog.get_logger()

Accounts = Mapping[tuple[str, str], AnyVendor]


class LiveAccounts(Accounts):
    """Looks at the file, which takes some microseconds, at each access, and reads all settings again when it is another one.

    What cannot be read leaves everything as it is: a mistake in a file must not stop deliveries that can be verified.
    """

    def __init__(self, read: Callable[[], Accounts], file: Path) -> None:
        """Raises what `read` raises: at the start a mistake is to be seen."""
        self._file = file
        self._read = read
        self._seen = self._stamp()
        self._accounts = read()

    def __getitem__(self, name: tuple[str, str]) -> AnyVendor:
        self._look()
        return self._accounts[name]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        self._look()
        return iter(self._accounts)

    def __len__(self) -> int:
        return len(self._accounts)

    def _look(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._accounts = self._read()
        except ConfigurationError as error:
            log.error("secrets.not_reloaded", why=str(error))  # noqa: TRY400 - the message has it all
        else:
            log.info("secrets.reloaded")

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_ino, found.st_ctime_ns, found.st_size
