"""Which files of the log are used, and whether others use them."""

import fcntl
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from ingest.log.sqlite.overwritten import beside

_WAL_GONE = (
    "its -wal is gone while other processes use the log, which save what is in it when they use it next: "
    "try it again, or stop them"
)

_SIZE = 100


class FilesReplaced(sqlite3.OperationalError):
    """The log's files are being replaced by others: nothing that was read or written counts, so try again."""


_Inode = tuple[int, int] | None


def _inode(path: Path) -> _Inode:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


@dataclass(frozen=True, slots=True)
class Inodes:
    """The inodes of the main file and of the two that SQLite keeps beside it.

    https://www.sqlite.org/walformat.html
    """

    main: _Inode = None
    wal: _Inode = None
    shm: _Inode = None

    @classmethod
    def at(cls, path: Path) -> "Inodes":
        """Return the inodes of the files at a path."""
        return cls(_inode(path), _inode(beside(path, "wal")), _inode(beside(path, "shm")))


class Users:
    """A file beside the log, on which each connection has a shared lock while it is open.

    It names the main file and the -wal that they use. Without that -wal the main file may have new pages
    beside old ones, and only a process that still has it open can complete it.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises OSError."""
        self._path = path
        self._fd = os.open(beside(path, "users"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    @staticmethod
    def are_known(path: Path) -> bool:
        """Return whether anybody has opened the log to write."""
        return beside(path, "users").exists()

    def check(self) -> None:
        """Raise FilesReplaced when others use the log with a -wal that is not at its path."""
        inodes = Inodes.at(self._path)
        main, _, wal = self._read().partition(" ")
        # The last one who closes the log leaves, then deletes the -wal: whoever has not left has it open.
        if main == _text(inodes.main) and wal != _text(inodes.wal) and self._are_there_others():
            raise FilesReplaced(_WAL_GONE)

    def _are_there_others(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_SH)
        return False

    def name(self, inodes: Inodes) -> None:
        """Write down that these files are used. Raises FilesReplaced when their -wal is gone already."""
        if inodes.wal is None:
            raise FilesReplaced(_WAL_GONE)
        self._write(_names(inodes))

    def forget(self, inodes: Inodes) -> None:
        """Forget these files, if they are those written down: what their -wal had is in the main file."""
        if self._read() == _names(inodes):
            self._write("")

    def _read(self) -> str:
        return os.pread(self._fd, _SIZE, 0).decode().rstrip()

    def _write(self, text: str) -> None:
        os.pwrite(self._fd, text.ljust(_SIZE).encode(), 0)  # as long as before: a full disk has room for it

    def leave(self) -> None:
        """Release the lock."""
        os.close(self._fd)


def _names(inodes: Inodes) -> str:
    return f"{_text(inodes.main)} {_text(inodes.wal)}"


def _text(inode: _Inode) -> str:
    return "none" if inode is None else f"{inode[0]}:{inode[1]}"
