"""Private files, which are written as a whole or not at all, even in a power failure."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from ingest.errors import ConfigurationError
from ingest.locks import lock_orphan


def replace_private(file: Path, content: bytes) -> None:
    """Write a file with mode 0600, for the owner and group of the one that it replaces.

    Copies that writers left unfinished are removed. Raises OSError, and ConfigurationError when the owner
    cannot be kept.
    """
    remove_left_copies(file)
    with _new_copy(file) as new:
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


def remove_left_copies(file: Path) -> None:
    """Remove unfinished copies of a file whose writers were killed, which may hold all of its secrets.

    Copies that cannot be removed are left.
    """
    # Temporary files end in eight characters. https://docs.python.org/3/library/tempfile.html
    name = re.compile(rf"\.{re.escape(file.name)}-[a-z0-9_]{{8}}")
    with suppress(OSError):
        for copy in [path for path in file.parent.iterdir() if name.fullmatch(path.name)]:
            with suppress(OSError), lock_orphan(copy):
                copy.unlink()


@contextmanager
def _new_copy(file: Path) -> Iterator[IO[bytes]]:
    """Make a copy that is locked while its writer lives."""
    # Another process may take the copy for an orphan before it is locked, and remove it: then make another
    # one.
    while True:
        with NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}-", delete=False) as new:
            fcntl.flock(new, fcntl.LOCK_EX)
            if Path(new.name).exists():
                yield new
                return


def _give_to_owner_of(file: Path, new: int) -> None:
    """Give the new file to the owner and group of the old one.

    A command that an administrator runs would otherwise take the file away from the service that reads it.
    """
    try:
        old = file.stat()
    except FileNotFoundError:
        return
    current = os.fstat(new)
    if (old.st_uid, old.st_gid) == (current.st_uid, current.st_gid):
        return
    try:
        os.fchown(new, old.st_uid, old.st_gid)
    except PermissionError:
        raise ConfigurationError(
            f"{file} belongs to user {old.st_uid}, group {old.st_gid}, and this command would change "
            "that: run it as that user"
        ) from None
