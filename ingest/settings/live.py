"""Values that are read from settings files, and read again in the background when a file changes."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from ingest.errors import ConfigurationError
from ingest.finding import Finding, warning

log = structlog.get_logger()

T = TypeVar("T")
Stamp = tuple[str, int, int, int]

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0
# Callers wait for small files, so that a new secret is live at once. They do not wait for large ones, because
# a caller may be an event loop.
_QUICK_SECONDS, _WAIT_SECONDS = 0.25, 0.5
# Checking the files takes a hundredth of the time at most: those of a few accounts are checked again after a
# millisecond.
_LOOK_SHARE = 100


class Live(Generic[T]):
    """A value that is read from files.

    `current` checks the files now and then, which takes some microseconds, and lets a thread read them when one has
    changed. Whatever goes wrong in reading leaves the value as it is, because a mistake in a file must not
    stop a running process. Files that could not be read are read again when they change, and seldom
    otherwise. `trouble` says what is wrong, and is "" as long as nothing is.
    """

    def __init__(self, read: Callable[[], T], paths: Sequence[Path], first: T | None = None) -> None:
        """Watch these files, and all files in those of them that are folders.

        Without a `first` value, `read` is called here and may raise.
        """
        self._read, self._paths = read, paths
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None
        self._tried: list[Stamp | None] = []
        self._seen: list[Stamp | None] | None = None
        self._pause, self._next, self._next_look = _FIRST_PAUSE_SECONDS, 0.0, 0.0
        self._took = 0.0
        self.trouble = ""
        if first is None:
            stamps, began = self._stamps(), time.monotonic()
            first = read()
            self._seen, self._took = stamps, time.monotonic() - began
        self._value = first

    def current(self) -> T:
        """Return the last value that could be read."""
        if (
            time.monotonic() >= self._next_look
            and (reader := self._start_reading())
            and self._took < _QUICK_SECONDS
        ):
            reader.join(_WAIT_SECONDS)
        return self._value

    def _start_reading(self) -> threading.Thread | None:
        """Start a thread when a file has changed, unless one is reading already.

        The next call then sees later changes.
        """
        stamps = self._stamps()
        if stamps == self._seen:
            self.trouble = ""  # a mistake was taken back
            return None
        with self._lock:
            again = stamps == self._tried
            if (self._reader and self._reader.is_alive()) or (again and time.monotonic() < self._next):
                return None
            self._tried = stamps
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS) if again else _FIRST_PAUSE_SECONDS
            self._reader = threading.Thread(target=self._reload, args=(stamps,), name="settings", daemon=True)
            self._reader.start()
            return self._reader

    def _reload(self, stamps: list[Stamp | None]) -> None:
        began = time.monotonic()
        try:
            value = self._read()
        except Exception as error:  # noqa: BLE001 - or whoever asks would fail, each delivery with 500
            why = (
                str(error) if isinstance(error, ConfigurationError) else type(error).__name__
            )  # whose message may quote a secret
            self._next = time.monotonic() + self._pause
            self.trouble = why
            log.error("secrets.not_reloaded", why=why, kept="the settings as they were")  # noqa: TRY400 - the message has it all
        else:
            is_first, self._seen = self._seen is None, stamps
            self._value, self.trouble = value, ""
            if not is_first:
                log.info("secrets.reloaded")
        self._took = time.monotonic() - began

    def findings(self) -> list[Finding]:
        """Return a warning for readiness while the files cannot be used."""
        self._next_look = 0.0
        self.current()
        if not self.trouble:
            return []
        return [
            warning(
                "settings",
                "the files cannot be used, so this process goes on with the settings as they were: "
                f"{self.trouble}",
            )
        ]

    def _stamps(self) -> list[Stamp | None]:
        began = time.thread_time()  # to be kept waiting by others is no reason to look less often
        stamps = [stamp for path in self._paths for stamp in _stamps(path)]
        took = time.thread_time() - began
        self._next_look = time.monotonic() + took * _LOOK_SHARE
        return stamps


def _stamps(path: Path) -> list[Stamp | None]:
    """Return values that change when a file does, or a folder or a file in it.

    A link counts as the file that it leads to in the end: Kubernetes changes mounted files by pointing the
    link `..data`, which all of them lead through, to another folder.
    """
    try:
        below = sorted(path.iterdir()) if path.is_dir() else []
    except OSError:
        below = []
    return [_stamp(path), *map(_stamp, below)]


def _stamp(path: Path) -> Stamp | None:
    """Return values that change when a file does; None for one that cannot be read, or is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return str(path), status.st_ino, status.st_ctime_ns, status.st_size
