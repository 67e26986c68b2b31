"""Whether a folder takes files, and how much room its disk has; nothing is left there."""

import os
import shutil
from pathlib import Path
from tempfile import TemporaryFile

_PROBE_BYTES = 64 * 1024


def write_trouble(folder: Path) -> str:
    """Why a file cannot be written and synced there, or the folder made; "" when it can."""
    place = nearest(folder)
    try:
        with TemporaryFile(dir=place) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"{place} cannot be written to: {error.strerror}"
    return ""


def free_bytes(folder: Path) -> int:
    """On the disk that the folder is on, or would be made on. Raises OSError."""
    return shutil.disk_usage(nearest(folder)).free


def nearest(path: Path) -> Path:
    """The path itself, or the first folder above it that exists."""
    return next((place for place in (path, *path.absolute().parents) if place.exists()), Path("/"))
