"""Files that only their owner reads, written whole or not at all, whenever the power goes."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

from ingest.errors import ConfigurationError


def replace_private(file: Path, content: bytes) -> None:
    """As 0600, as temporary files are, for the owner and group of what it replaces. Raises OSError, ConfigurationError."""
    with NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}-", delete=False) as new:
        try:
            _give_to_owner_of(file, new.fileno())
            new.write(content)
            new.flush()
            os.fsync(new.fileno())
            Path(new.name).replace(file)
        except BaseException:
            Path(new.name).unlink(missing_ok=True)  # it may hold secrets
            raise
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _give_to_owner_of(file: Path, new: int) -> None:
    """Else a command that an administrator ran would take the file from the service that reads it."""
    try:
        old = file.stat()
    except FileNotFoundError:
        return
    made = os.fstat(new)
    if (old.st_uid, old.st_gid) == (made.st_uid, made.st_gid):
        return
    try:
        os.fchown(new, old.st_uid, old.st_gid)
    except PermissionError:
        raise ConfigurationError(
            f"{file} belongs to user {old.st_uid}, group {old.st_gid}, and would not any more: run this command as that user"
        ) from None
