"""Folders for what is needed only while a process runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from ingest.errors import ConfigurationError


def check_scratch() -> None:
    """Raises ConfigurationError where there is no folder for temporary files, which libraries need too."""
    try:
        gettempdir()
    except FileNotFoundError as error:
        raise ConfigurationError(_remedy(error)) from None


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A new folder, removed at the end. Raises ConfigurationError where it cannot be made."""
    check_scratch()
    try:
        folder = TemporaryDirectory(prefix=prefix)
    except OSError as error:
        raise ConfigurationError(_remedy(error)) from None
    with folder as path:
        yield Path(path)


def _remedy(error: OSError) -> str:
    return f"no folder takes temporary files: {error.strerror}; mount a writable one of a few megabytes, and set TMPDIR to it if it is not /tmp"
