"""Temporary folders, which are removed at the latest by the next process."""

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
    """Raise ConfigurationError when there is no folder for temporary files, which libraries need too."""
    try:
        gettempdir()
    except FileNotFoundError as error:
        raise ConfigurationError(_describe_failure(error)) from None


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """Make a temporary folder for a `with` block.

    Folders with this prefix whose processes were killed are removed.

    Raises ConfigurationError when it cannot be made.
    """
    check_scratch()
    for orphan in Path(gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError), lock_orphan(orphan / _LOCK):  # fails for the folders of other users too
            shutil.rmtree(orphan)
    try:
        folder = TemporaryDirectory(prefix=prefix)
        lock = _lock(Path(folder.name))
    except OSError as error:
        raise ConfigurationError(_describe_failure(error)) from None
    try:
        with folder as path:
            yield Path(path)
    finally:
        os.close(lock)


def _lock(folder: Path) -> int:
    """Lock a file in the folder for as long as the process lives, and return its descriptor."""
    # The file gets its name when it is locked: until then the folder must not look like an orphan.
    new = folder / f".{_LOCK}"
    lock = os.open(new, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    new.rename(folder / _LOCK)
    return lock


def _describe_failure(error: OSError) -> str:
    return (
        f"no folder takes temporary files: {error.strerror}; mount a writable one of a few megabytes,"
        " and set TMPDIR to it if it is not /tmp"
    )
