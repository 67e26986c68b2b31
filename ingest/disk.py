"""Checks that a folder takes files, and of the free space on its disk; they leave nothing there."""

import os
import shutil
from errno import EINVAL, EOPNOTSUPP
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile

from ingest.errors import ConfigurationError

LOW_BYTES = 1024**3  # with less free space a disk is soon full
FULL_BYTES = 200 * 1024**2  # with less it counts as full

_PROBE_BYTES = 64 * 1024
_RESERVED_BYTES = 4 * 1024 * 1024  # for the largest record, in a journal and in its file
_MAX_FILES = 1000


def explain_unwritable(folder: Path) -> str:
    """Return why a file of the size of a large record cannot be written to a folder; "" when it can."""
    existing = nearest_existing(folder)
    try:
        with TemporaryFile(dir=existing) as file:
            _reserve(file.fileno(), _RESERVED_BYTES)
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"{existing} cannot be written to: {error.strerror}"
    return ""


def _reserve(file: int, size: int) -> None:
    """Reserve space for so many bytes, if the file system can. Raises OSError when there is not enough."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in {EOPNOTSUPP, EINVAL}:  # it cannot reserve, which says nothing of the space
            raise


def require_writable(folder: Path, setting: str) -> None:
    """Raise ConfigurationError, which names the setting, when no file can be written to the folder."""
    if why := explain_unwritable(folder):
        raise ConfigurationError(
            f"{setting} {folder}: {why}; make it writable for this user, or set {setting} to another folder"
        )


def find_unusable_file(folder: Path) -> Path | None:
    """Return a file of a folder that this user may not read and write; None when there is none."""
    if not folder.is_dir():
        return None
    return next((entry for entry in islice(folder.iterdir(), _MAX_FILES) if not is_usable(entry)), None)


def is_usable(file: Path) -> bool:
    """Return whether this user may read and write a file."""
    return os.access(file, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def free_bytes(folder: Path) -> int:
    """Return the free space on the disk that the folder is on, or would be made on. Raises OSError."""
    return shutil.disk_usage(nearest_existing(folder)).free


def nearest_existing(path: Path) -> Path:
    """Return the path itself, or the first folder above it that exists."""
    return next(
        (candidate for candidate in (path, *path.absolute().parents) if candidate.exists()), Path("/")
    )
