"""Detection of a main file that was written over by a copy of another time while its -wal is in use.

SQLite does not notice that, and the file keeps its inode. Every transaction of this project raises
`user_version`, which is on the first page. So the -wal tells which versions the main file may have: the one
that a checkpoint copied into it, or the one it had when the -wal began, and nothing newer than SQLite shows.
Formats: https://www.sqlite.org/fileformat2.html#the_database_header and https://www.sqlite.org/walformat.html
"""

import os
import sqlite3
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path

_HEADER = struct.Struct(">16x H 10x I 28x i")  # of the main file: page size, pages, user_version
_INDEX_BYTES = 136  # of the -shm: all that is not a table of pages
_INDEX = struct.Struct("=14x H I 12x 8s 56x I")  # page size, frames, salts of the -wal, frames copied
_WAL_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_SALTS = slice(16, 24)  # in the -wal's header
_VERSION_AT = 60  # on the first page
_MAX_LOOKS = 30
_DIFFERENCES = 8
_LOOK_SECONDS = 0.05


def beside(path: Path, kind: str) -> Path:
    """Return the path of the file that SQLite keeps beside the main one."""
    return path.with_name(f"{path.name}-{kind}")


def read_version(connection: sqlite3.Connection) -> int:
    """Return the version that SQLite shows. Raises sqlite3.Error."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def raise_version(connection: sqlite3.Connection) -> None:
    """Raise the version by one, within a transaction. Raises sqlite3.Error."""
    connection.execute(f"PRAGMA user_version = {_signed(read_version(connection) + 1)}")


def _signed(number: int) -> int:
    """Return a version as SQLite stores it, in 32 bits with overflow."""
    return (number + 2**31) % 2**32 - 2**31


def _at_least(version: int, other: int) -> bool:
    return _signed(version - other) >= 0


@dataclass(slots=True)
class _WalVersions:
    """Versions that were read from a -wal, which do not change while its salts are the same."""

    salts: bytes = b""
    frames_read: int = 0
    first: int | None = None  # the version of the first frame that has a first page
    copied: tuple[int, int | None] = (0, None)  # frames in the main file, and their version


@dataclass(slots=True)
class RawFiles:
    """The three files of a log, read without SQLite.

    Closing any of them drops all locks of this process on it (POSIX), so they are closed only when nobody in
    this process has the log open.
    """

    main: int | None
    wal: int | None
    shm: int | None
    _versions: _WalVersions = field(default_factory=_WalVersions)

    @classmethod
    def at(cls, path: Path) -> "RawFiles":
        """Open the files that exist. Raises OSError when one cannot be read."""
        return cls(_open(path), _open(beside(path, "wal")), _open(beside(path, "shm")))

    def inodes(self) -> list[tuple[int, int] | None]:
        """Return device and inode of each file; None for one that is not there."""
        statuses = [fd if fd is None else os.fstat(fd) for fd in (self.main, self.wal, self.shm)]
        return [status if status is None else (status.st_dev, status.st_ino) for status in statuses]

    def close(self) -> None:
        """Close the files."""
        for fd in (self.main, self.wal, self.shm):
            if fd is not None:
                os.close(fd)

    def is_overwritten(self, connection: sqlite3.Connection) -> bool:
        """Return whether the main file is of another time than the -wal. Raises sqlite3.Error, OSError.

        Other processes go on meanwhile. So a look counts only if the -shm stayed the same, and a difference
        must last for several looks: that of another process's checkpoint is over within moments.
        """
        if self.main is None or self.wal is None or self.shm is None:
            return False
        differences = 0
        for _ in range(_MAX_LOOKS):
            index = os.pread(self.shm, _INDEX_BYTES, 0)
            if len(index) < _INDEX_BYTES or self._fits(connection, index):
                return False
            if index == os.pread(self.shm, _INDEX_BYTES, 0):
                differences += 1
            if differences >= _DIFFERENCES:
                return True
            time.sleep(_LOOK_SECONDS)
        return False

    def is_whole(self) -> bool:
        """Return whether the main file has all pages that its header counts, unlike while a copy is written.

        Raises OSError.
        """
        if self.main is None or (header := self._main_header()) is None:
            return False
        page, pages, _ = header
        return os.fstat(self.main).st_size >= pages * (page if page > 1 else 65_536)

    def _fits(self, connection: sqlite3.Connection, index: bytes) -> bool:
        page, frames, salts, copied = _INDEX.unpack_from(index)
        oldest = self._oldest(page if page > 1 else 65_536, frames, salts, copied)
        newest = read_version(connection)
        header = self._main_header()
        if header is None:
            return False
        if not frames:
            return header[2] == newest
        return _at_least(newest, header[2]) and (oldest is None or _at_least(header[2], oldest))

    def _main_header(self) -> tuple[int, int, int] | None:
        """Return page size, pages and version; None for a file without a header."""
        data = b"" if self.main is None else os.pread(self.main, _HEADER.size, 0)
        return None if len(data) < _HEADER.size else _HEADER.unpack(data)

    def _oldest(self, page: int, frames: int, salts: bytes, copied: int) -> int | None:
        """Return the lowest version that the main file may have; None when the -wal does not tell."""
        if self.wal is None or not frames or os.pread(self.wal, _WAL_HEADER_BYTES, 0)[_SALTS] != salts:
            return None
        if self._versions.salts != salts:
            self._versions = _WalVersions(salts)
        versions = self._versions
        if versions.first is None:
            versions.first = _first_version(self.wal, page, range(versions.frames_read, frames))
            versions.frames_read = frames
        if copied != versions.copied[0]:
            versions.copied = copied, _first_version(self.wal, page, range(copied - 1, -1, -1))
        if versions.copied[1] is not None:
            return versions.copied[1]
        return None if versions.first is None else _signed(versions.first - 1)


def _first_version(wal: int, page: int, frames: range) -> int | None:
    """Return the version of the first of these frames that has a first page."""
    for frame in frames:
        start = _WAL_HEADER_BYTES + frame * (_FRAME_HEADER_BYTES + page)
        if int.from_bytes(os.pread(wal, 4, start)) == 1:
            return int.from_bytes(os.pread(wal, 4, start + _FRAME_HEADER_BYTES + _VERSION_AT), signed=True)
    return None


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
