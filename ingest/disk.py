"""Whether a folder takes files, and how much room its disk has; nothing is left there."""

import os
import shutil
from errno import EINVAL, EOPNOTSUPP
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile

from ingest.errors import ConfigurationError

# Free room: less is soon too little, and less is too little.
LOW_BYTES = 1024**3
FULL_BYTES = 200 * 1024**2

_PROBE_BYTES = 64 * 1024
_ROOM_BYTES = 4 * 1024 * 1024  # for the largest record, in a journal and in its file
_MOST_FILES = 1000


def write_trouble(folder: Path) -> str:
    """Why a file with room for a large record cannot be written and synced there, or the folder made; "" when it can."""
    place = nearest(folder)
    try:
        with TemporaryFile(dir=place) as file:
            _reserve(file.fileno(), _ROOM_BYTES)
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"{place} cannot be written to: {error.strerror}"
    return ""


def _reserve(file: int, size: int) -> None:
    """Take room on the disk for so many bytes, where the file system can. Raises OSError where there is not as much."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in {EOPNOTSUPP, EINVAL}:  # it cannot, which says nothing of the room
            raise


def require_writable(folder: Path, setting: str) -> None:
    """Raises ConfigurationError, which names the setting, when no file can be written there."""
    if trouble := write_trouble(folder):
        raise ConfigurationError(
            f"{setting} {folder}: {trouble}; make it writable for this user, or set {setting} to another folder"
        )


def strange_file(folder: Path) -> Path | None:
    """A file in it that this user may not read and write; None when there is none, or no folder."""
    if not folder.is_dir():
        return None
    return next((entry for entry in islice(folder.iterdir(), _MOST_FILES) if not may_use(entry)), None)


def may_use(file: Path) -> bool:
    """Whether this user may read and write it."""
    return os.access(file, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def free_bytes(folder: Path) -> int:
    """On the disk that the folder is on, or would be made on. Raises OSError."""
    return shutil.disk_usage(nearest(folder)).free


def nearest(path: Path) -> Path:
    """The path itself, or the first folder above it that exists."""
    return next((place for place in (path, *path.absolute().parents) if place.exists()), Path("/"))
