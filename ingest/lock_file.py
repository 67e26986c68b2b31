"""Lock files between our processes: while one is waited for, it is told which process has it."""

import os
from pathlib import Path

from filelock import FileLock, Timeout

from ingest.waits import Wait

_ROUND_SECONDS = 1.0
_LOCKS = Path("/proc/locks")


def acquire(lock: FileLock, patience: float, purpose: str) -> None:
    """Waits at most `patience` seconds, and tells what for. `purpose`: what the lock is about, as a sentence. Raises filelock's Timeout."""
    wait = Wait(purpose, patience)
    left = patience
    while True:
        try:
            lock.acquire(timeout=min(_ROUND_SECONDS, left))
        except Timeout:
            left -= _ROUND_SECONDS
            if left <= 0:
                raise
            wait.look(f"{purpose}{holder(Path(lock.lock_file))}")
        else:
            return


def holder(file: Path) -> str:
    """` (process 123, ingest consume)`, where Linux tells who has a lock; else nothing. https://man7.org/linux/man-pages/man5/proc_locks.5.html"""
    try:
        inode = file.stat().st_ino
        for line in _LOCKS.read_text().splitlines():
            fields = line.split()
            if "->" not in fields and fields[5].rpartition(":")[2] == str(inode):
                return _described(int(fields[4]))
    except (OSError, ValueError, IndexError):
        pass
    return ""


def _described(pid: int) -> str:
    """The command without its options, whose values may be anything."""
    if pid == os.getpid():
        return " (by another part of this process)"
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    at = next((at for at, word in enumerate(words) if word == "ingest" or word.endswith("/ingest")), None)
    named = [] if at is None else [word for word in words[at + 1 : at + 2] if word.isalpha()]
    return f" (process {pid}{f', ingest {named[0]}' if named else ''})"
