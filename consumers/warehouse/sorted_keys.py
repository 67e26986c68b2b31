"""Files of sorted look-up keys: a load finds rows of a large DuckDB table without reading a whole column.

A file lies beside the database and never changes. It has all rows that the table had below some `_lookup_run`
when it was made; later ones have a higher one, and loads read all of their keys. So what a file says may be
out of date in one way only: rows have gone, or have other numbers. The table `_lookup_runs` names the file of
each table. It is in the database, so that a restored or copied database never meets a file with rows of
another one.
"""

import os
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import pyarrow as pa

_STEP = 512  # of so many entries one is in memory
_BYTES = 8
_ROW_NUMBERS = 1 << 32

Entry = tuple[int, int]
"""A look-up key and the number that its row had."""


def entry_sql(key: str, number: str) -> str:
    """Return SQL for an entry as a file has it: the key in the upper 32 bits, the number in the others."""
    return f"{key}::BIGINT * {_ROW_NUMBERS} + {number}"


def can_have(number: int) -> bool:
    """Return whether a file can have a row with this number."""
    return number < _ROW_NUMBERS


def write_sorted(file: Path, batches: Iterable[pa.RecordBatch]) -> int:
    """Write entries, which come in their order, and return their number when they are durable.

    Raises OSError.
    """
    steps, size = array("q"), 0
    with file.open("xb") as output:
        for batch in batches:
            column = batch.column(0)
            _, values = column.buffers()
            entries = memoryview(cast(pa.Buffer, values)).cast("q")[column.offset :][: len(column)]
            steps.extend(entries[-size % _STEP :: _STEP])
            output.write(entries)
            size += len(entries)
        output.write(steps)
        output.flush()
        os.fsync(output.fileno())
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return size


class SortedKeys:
    """The entries of one file."""

    def __init__(self, file: Path, size: int) -> None:
        """Take a file that has so many entries. Raises OSError where it has not."""
        self.size, self._file, self._steps = size, file, array("q")
        with file.open("rb") as content:
            content.seek(size * _BYTES)
            steps = content.read()
        if len(steps) != -(-size // _STEP) * _BYTES:
            raise OSError(f"{file} has another size than it was written with")
        self._steps.frombytes(steps)

    def find(self, keys: Iterable[int]) -> Iterator[Entry]:
        """Yield the entries that have one of these keys. Raises OSError."""
        with self._file.open("rb", buffering=0) as file:
            for key in keys:
                least = key * _ROW_NUMBERS
                start = max(bisect_left(self._steps, least) - 1, 0) * _STEP
                end = min(bisect_left(self._steps, least + _ROW_NUMBERS) * _STEP, self.size)
                if start >= end:
                    continue
                content = os.pread(file.fileno(), (end - start) * _BYTES, start * _BYTES)
                if len(content) < (end - start) * _BYTES:
                    raise OSError(f"{self._file} is shorter than it was")
                entries = memoryview(content).cast("q")
                for entry in entries[bisect_left(entries, least) :]:
                    if entry // _ROW_NUMBERS != key:
                        break
                    yield key, entry % _ROW_NUMBERS
