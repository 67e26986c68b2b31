"""Lock files, which at most one process holds at a time."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ingest.waits import Wait

_ROUND_SECONDS = 1.0
_POLL_SECONDS = 0.005
_DEFAULT_MODE = -1  # what the umask leaves
_PRIVATE_MODE = 0o600
_PROC_LOCKS = Path("/proc/locks")


class HeldLock:
    """A lock file that this process holds."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def release(self) -> None:
        """Let other processes have the lock."""
        self._lock.release()

    def __enter__(self) -> None:
        """Hold the lock until the end of the block."""

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self.release()


def exclusive(
    path: Path,
    patience: float,
    busy: Callable[[str], Exception],
    *,
    purpose: str = "",
    private: bool = False,
) -> HeldLock:
    """Lock a file, for a `with` block or until `release` is called.

    `busy` makes the error to raise when another process holds the lock for longer than `patience` seconds. It
    gets that process as ` (process 123, ingest consume)`, or "" where the system does not tell. `purpose` is
    what is waited for, as a sentence for the person who waits. A `private` lock file has mode 0600.

    Raises OSError when the file cannot be made.
    """
    lock = FileLock(path, mode=_PRIVATE_MODE if private else _DEFAULT_MODE, poll_interval=_POLL_SECONDS)
    wait = Wait(purpose, patience)
    remaining = patience
    while True:
        try:
            lock.acquire(timeout=min(_ROUND_SECONDS, remaining))
        except Timeout:
            remaining -= _ROUND_SECONDS
            if remaining <= 0:
                raise busy(lock_holder(path)) from None
            if purpose:
                wait.announce_if_due(f"{purpose}{lock_holder(path)}")
        else:
            return HeldLock(lock)


@contextmanager
def lock_orphan(path: Path) -> Iterator[None]:
    """Hold the lock of a file whose process was killed.

    Raises BlockingIOError while the process lives, and OSError when the file cannot be opened.
    """
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def lock_holder(path: Path) -> str:
    """Return the process that holds a lock file, as ` (process 123, ingest consume)`; "" if unknown.

    https://man7.org/linux/man-pages/man5/proc_locks.5.html
    """
    try:
        inode = str(path.stat().st_ino)
        for line in _PROC_LOCKS.read_text().splitlines():
            fields = line.split()
            if "->" not in fields and fields[5].rpartition(":")[2] == inode:
                return _describe_process(int(fields[4]))
    except (OSError, ValueError, IndexError):
        pass
    return ""


def _describe_process(pid: int) -> str:
    """Describe a process by its id and command, without the options, whose values may be secrets."""
    if pid == os.getpid():
        return " (by another part of this process)"
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    program = next((i for i, word in enumerate(words) if word == "ingest" or word.endswith("/ingest")), None)
    command = words[program + 1] if program is not None and program + 1 < len(words) else ""
    return f" (process {pid}{f', ingest {command}' if command.isalpha() else ''})"
