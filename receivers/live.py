"""The accounts as the settings have them now: a new secret or account is live at the next delivery, without a restart."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import structlog

from ingest.errors import ConfigurationError
from ingest.vendors import AnyVendor

log = structlog.get_logger()

Accounts = Mapping[tuple[str, str], AnyVendor]
Stamp = tuple[str, int, int, int]

_AGAIN_SECONDS = 1.0


class LiveAccounts(Accounts):
    """Looks at the files, which takes some microseconds, at each access, and reads all settings again when one is another.

    Whatever goes wrong in reading leaves everything as it is: a mistake in a file must not stop deliveries that can be verified. It
    is read again when it changes, and every second: an editor may have been saving it.
    """

    def __init__(self, read: Callable[[], Accounts], paths: Sequence[Path]) -> None:
        """`paths`: the files to look at; of a folder, all files in it. Raises what `read` raises: at the start a mistake is to be seen."""
        self._paths = paths
        self._read = read
        self._seen = self._tried = self._stamps()
        self._next = 0.0
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
        stamps, now = self._stamps(), time.monotonic()
        if stamps == self._seen or (stamps == self._tried and now < self._next):
            return
        self._tried, self._next = stamps, now + _AGAIN_SECONDS
        try:
            self._accounts = self._read()
        except Exception as error:  # noqa: BLE001 - or every delivery would be answered 500
            why = str(error) if isinstance(error, ConfigurationError) else type(error).__name__  # whose message may quote a secret
            log.error("secrets.not_reloaded", why=why)  # noqa: TRY400 - the message has it all
        else:
            self._seen = stamps
            log.info("secrets.reloaded")

    def _stamps(self) -> list[Stamp | None]:
        return [stamp for path in self._paths for stamp in _stamps(path)]


def _stamps(path: Path) -> list[Stamp | None]:
    """What changes when the file does, or the folder or a file in it.

    A link counts as the file that it leads to in the end: Kubernetes changes mounted files by pointing the link `..data`, which all of
    them lead through, to another folder.
    """
    try:
        below = sorted(path.iterdir()) if path.is_dir() else []
    except OSError:
        below = []
    return [_stamp(path), *map(_stamp, below)]


def _stamp(path: Path) -> Stamp | None:
    """None for what cannot be looked at, such as a file that is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return str(path), status.st_ino, status.st_ctime_ns, status.st_size
