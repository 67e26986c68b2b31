"""Detection of a main file that was written over by a copy of another time while its -wal is in use.

SQLite does not notice that, and the file keeps its inode. Every transaction of this project raises
`user_version`, which is on the first page. A main file into which the whole -wal was copied has the version
of the last frames; SQLite then reads the main file alone. Until then its version is between the one that
SQLite shows and the last one that was copied and synced, which the next transaction keeps as
`application_id`. It may be any of these: a checkpoint leaves out a page that has a newer frame than those it
may copy, and a power cut takes back what it did not sync.
Formats: https://www.sqlite.org/fileformat2.html#the_database_header and https://www.sqlite.org/walformat.html
"""

import os
import sqlite3
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_HEADER = struct.Struct(">16x H 10x I 28x i")  # of the main file: page size, pages, user_version
_INDEX_BYTES = 136  # of the -shm: all that is not a table of pages
_INDEX = struct.Struct(
    "=14x H I 12x 8s 56x I"
)  # page size, frames, salts of the -wal, frames copied and synced
_WAL_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_SALTS = slice(16, 24)  # in the -wal's header
_VERSION_AT = 60  # on the first page
_MAX_LOOKS = 10


def beside(path: Path, kind: str) -> Path:
    """Return the path of the file that SQLite keeps beside the main one, also where a link leads to that.

    https://www.sqlite.org/wal.html
    """
    return _named(path.resolve() if path.is_symlink() else path, kind)


@lru_cache(maxsize=64)  # each transaction asks for these
def _named(main: Path, kind: str) -> Path:
    return main.with_name(f"{main.name}-{kind}")


def _signed(number: int) -> int:
    """Return a version as SQLite stores it, in 32 bits with overflow."""
    return (number + 2**31) % 2**32 - 2**31


def _at_least(version: int, other: int) -> bool:
    return _signed(version - other) >= 0


@dataclass(slots=True)
class RawFiles:
    """The three files of a log, read without SQLite.

    Closing any of them drops all locks of this process on it (POSIX), so they are closed only when nobody in
    this process has the log open.
    """

    main: int | None
    wal: int | None
    shm: int | None
    # Salts and frames of a -wal, and the version of its last first page: they belong together for good.
    _wal_version: tuple[bytes, int, int | None] = (b"", 0, None)

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

    def raise_version(self, connection: sqlite3.Connection) -> None:
        """Raise the version by one, within a transaction. Raises sqlite3.Error, OSError."""
        version = _read(connection, "user_version")
        if self._is_copied(self._index()):
            connection.execute(f"PRAGMA application_id = {version}")
        connection.execute(f"PRAGMA user_version = {_signed(version + 1)}")

    def is_overwritten(self, connection: sqlite3.Connection) -> bool:
        """Return whether the main file is of another time than the -wal. Raises sqlite3.Error, OSError.

        Other processes go on meanwhile. So a look counts only if the -shm stayed the same, and two looks must
        agree on a difference.
        """
        differences = 0
        for _ in range(_MAX_LOOKS):
            index = self._index()
            if not index or self._fits(connection, index):
                return False
            if index == self._index():
                differences += 1
            if differences > 1:
                return True
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
        newest, synced = _read(connection, "user_version"), _read(connection, "application_id")
        header = self._main_header()
        if header is None:
            return False
        version = header[2]
        if self._is_copied(index):
            last = self._version_of_wal(index)
            return version == (newest if last is None else last)
        # A log of an earlier release, or whose version was set by hand, does not tell what was synced.
        return _at_least(newest, version) and (_at_least(version, synced) or not _at_least(newest, synced))

    def _index(self) -> bytes:
        """Return the header of the -shm, b"" when there is none."""
        index = b"" if self.shm is None else os.pread(self.shm, _INDEX_BYTES, 0)
        return index if len(index) == _INDEX_BYTES else b""

    @staticmethod
    def _is_copied(index: bytes) -> bool:
        """Return whether all of the -wal is in the main file, and synced."""
        if not index:
            return False
        _, frames, _, copied = _INDEX.unpack_from(index)
        return bool(copied >= frames)

    def _version_of_wal(self, index: bytes) -> int | None:
        """Return the version that the -wal's last transaction wrote; None when it has none."""
        page, frames, salts, _ = _INDEX.unpack_from(index)
        if self.wal is None or not frames or os.pread(self.wal, _WAL_HEADER_BYTES, 0)[_SALTS] != salts:
            return None
        if self._wal_version[:2] == (salts, frames):
            return self._wal_version[2]
        version = None  # that of the last frame that has a first page
        for frame in range(frames - 1, -1, -1):
            start = _WAL_HEADER_BYTES + frame * (_FRAME_HEADER_BYTES + (page if page > 1 else 65_536))
            if int.from_bytes(os.pread(self.wal, 4, start)) == 1:
                data = os.pread(self.wal, 4, start + _FRAME_HEADER_BYTES + _VERSION_AT)
                version = int.from_bytes(data, signed=True)
                break
        self._wal_version = salts, frames, version
        return version

    def _main_header(self) -> tuple[int, int, int] | None:
        """Return page size, pages and version; None for a file without a header."""
        data = b"" if self.main is None else os.pread(self.main, _HEADER.size, 0)
        return None if len(data) < _HEADER.size else _HEADER.unpack(data)


def _read(connection: sqlite3.Connection, pragma: str) -> int:
    value: int = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    return value


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
