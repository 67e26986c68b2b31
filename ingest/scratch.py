"""Folders for what is needed only while a process runs."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from ingest.errors import ConfigurationError
from ingest.locks import lock_orphan

_LOCK = "in-use"


def check_scratch() -> None:
    """Raises ConfigurationError where there is no folder for temporary files, which libraries need too."""
    try:
        gettempdir()
    except FileNotFoundError as error:
        raise ConfigurationError(_remedy(error)) from None


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A new folder, removed at the end; and so are those of this prefix whose processes were killed.

    Raises ConfigurationError where it cannot be made.
    """
    check_scratch()
    _remove_left(prefix)
    try:
        folder = TemporaryDirectory(prefix=prefix)
        lock = _lock(Path(folder.name))
    except OSError as error:
        raise ConfigurationError(_remedy(error)) from None
    try:
        with folder as path:
            yield Path(path)
    finally:
        os.close(lock)


def _lock(folder: Path) -> int:
    """Held by the process, and by nobody when that is gone. It has its name only when it is held: a folder without it is not looked at."""
    new = folder / f".{_LOCK}"
    lock = os.open(new, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    new.rename(folder / _LOCK)
    return lock


def _remove_left(prefix: str) -> None:
    for folder in Path(gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError), lock_orphan(folder / _LOCK):  # fails for another user's folder too
            shutil.rmtree(folder)


def _remedy(error: OSError) -> str:
    return f"no folder takes temporary files: {error.strerror}; mount a writable one of a few megabytes, and set TMPDIR to it if it is not /tmp"
