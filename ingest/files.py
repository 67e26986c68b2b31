"""Files and folders.

- Paths in settings, which are relative to the folder of the settings file, wherever a command is started.
- Tests of whether a disk takes files.
- Private files, which are written as a whole or not at all, even in a power failure.
- Temporary folders, which are removed at the latest by the next process.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EINVAL, EOPNOTSUPP
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory, TemporaryFile, gettempdir
from typing import IO, Annotated, get_args

from pydantic import AfterValidator, ValidationInfo
from pydantic.fields import FieldInfo

from ingest.errors import ConfigurationError
from ingest.locks import lock_orphan

# The key of the validation context under which the settings loader passes the folder of the settings file.
SETTINGS_FOLDER = "folder"

LOW_BYTES = 1024**3  # with less free space a disk is soon full
FULL_BYTES = 200 * 1024**2  # with less it counts as full
_PROBE_BYTES = 64 * 1024
_RESERVED_BYTES = 4 * 1024 * 1024  # for the largest record, in a journal and in its file
_MAX_CHECKED_FILES = 1000
_SCRATCH_LOCK = "in-use"


def absolute_path(path: str, info: ValidationInfo) -> str:
    """Return a path as absolute, below the folder of the validation context.

    `~` is the user's home. Without a context the path is unchanged.

    Raises ValueError when it is empty, or the user has no home.
    """
    if not path.strip():
        raise ValueError("is empty: write a path, or leave the setting out")
    folder = (info.context or {}).get(SETTINGS_FOLDER)
    if folder is None:
        return path
    try:
        return os.path.normpath(Path(folder, Path(path).expanduser()))
    except RuntimeError:
        raise ValueError(
            "begins with ~, and this user has no home folder here: write the absolute path"
        ) from None


def absolute_url(url: str, scheme: str, info: ValidationInfo) -> str:
    """Return a URL such as `sqlite:///data/x.db` with its path made absolute, where `scheme` is `sqlite:///`.

    Raises ValueError.
    """
    return scheme + absolute_path(url.removeprefix(scheme), info)


LocalPath = Annotated[str, AfterValidator(absolute_path)]


def is_local_path(field: FieldInfo) -> bool:
    """Return whether the type of a setting is `LocalPath`, or a union with it."""
    marks = [
        *field.metadata,
        *(mark for kind in get_args(field.annotation) for mark in getattr(kind, "__metadata__", ())),
    ]
    return any(isinstance(mark, AfterValidator) and mark.func is absolute_path for mark in marks)


def explain_unwritable(folder: Path) -> str:
    """Return why a file of the size of a large record cannot be written to a folder; "" when it can."""
    existing = nearest_existing(folder)
    try:
        with TemporaryFile(dir=existing) as file:
            if hasattr(os, "posix_fallocate"):
                try:
                    os.posix_fallocate(file.fileno(), 0, _RESERVED_BYTES)
                except OSError as error:
                    # A file system that cannot reserve space says nothing of how much there is.
                    if error.errno not in {EOPNOTSUPP, EINVAL}:
                        raise
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"{existing} cannot be written to: {error.strerror}"
    return ""


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
    entries = islice(folder.iterdir(), _MAX_CHECKED_FILES)
    return next((entry for entry in entries if not is_usable(entry)), None)


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
        # Fails for the folders of other users too.
        with suppress(OSError), lock_orphan(orphan / _SCRATCH_LOCK):
            shutil.rmtree(orphan)
    try:
        folder = TemporaryDirectory(prefix=prefix)
        # The lock file gets its name when it is locked: until then the folder must not look like an orphan.
        new = Path(folder.name) / f".{_SCRATCH_LOCK}"
        lock = os.open(new, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        new.rename(new.with_name(_SCRATCH_LOCK))
    except OSError as error:
        raise ConfigurationError(_describe_failure(error)) from None
    try:
        with folder as path:
            yield Path(path)
    finally:
        os.close(lock)


def _describe_failure(error: OSError) -> str:
    return (
        f"no folder takes temporary files: {error.strerror}; mount a writable one of a few megabytes,"
        " and set TMPDIR to it if it is not /tmp"
    )
