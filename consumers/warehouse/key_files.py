"""The files of sorted look-up keys of a database, and what the database says about them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import structlog
from dlt.destinations.sql_client import SqlClientBase

from consumers.warehouse.sorted_keys import Entry, SortedKeys, can_have, entry_sql, write_sorted

log = structlog.get_logger()

_RUNS_TABLE = "_lookup_runs"
_COLUMNS = (
    "table_name VARCHAR, run INTEGER, file_run INTEGER, file VARCHAR, entries BIGINT, stored_rows BIGINT"
    ", last_write VARCHAR"
)
_ROWS_WORTH_A_FILE = 1_000_000  # a load reads the keys of so many rows in some milliseconds
_SHARE_WORTH_A_FILE = 32  # of a table: to make its file takes as long as to read the keys some ten times
_SEARCHES_WORTH_A_FILE = 64
_MOST_GONE = 500_000  # which take some 35 MB of memory
_ROWS_PER_SORT = 8_000_000
_ROWS_PER_BATCH = 100_000


@dataclass(slots=True)
class _Table:
    """What this process knows about a table beside what the database says."""

    last_write: str = ""
    new_rows: int | None = None  # rows that the file does not have; None where they were not counted yet
    searches: int = 0  # for rows that are no longer where the file says
    gone: set[Entry] = field(default_factory=set)  # entries of rows that were deleted


class KeyFiles:
    """The files of the tables of one dataset, within turns of one process.

    The table `_lookup_runs` has the number of a table's rows after our last write. Where the table has
    another one, others have written rows, perhaps with a `_lookup_run` from elsewhere: then the file is not
    used any more, and made anew.
    """

    def __init__(self, client: SqlClientBase[Any], database: Path) -> None:
        self._client = client
        self._folder = database.with_name(f"{database.name}.keys")
        self._opened: dict[str, tuple[str, SortedKeys]] = {}
        self._tables: dict[str, _Table] = {}
        # `run` and `file_run` by table; None until they are read in this turn.
        self._runs: dict[str, tuple[int, int]] | None = None
        self._usable: dict[str, SortedKeys] = {}

    def begin_turn(self) -> None:
        """Forget what may have changed since the last turn."""
        self._runs = None

    def run(self, table: str) -> int:
        """Return the `_lookup_run` of the rows that are written now."""
        run, _ = self._read().get(table, (0, 0))
        return run

    def file_run(self, table: str) -> int:
        """Return the `_lookup_run` below which the file has all rows."""
        _, file_run = self._read()[table]
        return file_run

    def keys(self, table: str) -> SortedKeys | None:
        """Return the keys of a table's file, None where it has no file that can be used."""
        self._read()
        return self._usable.get(table)

    def find(self, table: str, keys: Iterable[int]) -> set[Entry]:
        """Return the entries with these keys of rows that are not known to be gone.

        Where the file cannot be read, the table has none any more.
        """
        sorted_keys = self.keys(table)
        if sorted_keys is None:
            return set()
        try:
            return set(sorted_keys.find(keys)) - self._known(table).gone
        except OSError as error:
            log.warning("warehouse.key_file_unused", table=table, why=str(error))
            del self._usable[table], self._opened[table]
            return set()

    def set_gone(self, table: str, entries: Iterable[Entry]) -> None:
        """Note that the rows of entries are gone: deleted in a commit, or not found by a search."""
        self._known(table).gone.update(entries)

    def count_search(self, table: str) -> None:
        """Note that rows had to be searched for without the file; after many times it is made anew."""
        self._known(table).searches += 1

    def note_write(self, tables: Iterable[str]) -> dict[str, str]:
        """Note the number of rows in the database, within a transaction that writes.

        Return a name of the write, by table, for `set_written` after the commit.
        """
        names = {table: uuid4().hex for table in tables if self.keys(table)}
        for table, name in names.items():
            self._client.native_connection.execute(
                f"UPDATE {self._name(_RUNS_TABLE)} SET last_write = ?,"  # noqa: S608 - our own names
                f" stored_rows = (SELECT count(*) FROM {self._name(table)}) WHERE table_name = ?",
                [name, table],
            )
        return names

    def set_written(self, names: dict[str, str]) -> None:
        """Note the names of writes that were committed."""
        for table, name in names.items():
            self._known(table).last_write = name

    def make_if_due(self, table: str, new_rows: int) -> None:
        """Make a table's file, after so many new rows were written, where that makes loads quicker."""
        keys, known = self.keys(table), self._known(table)
        if known.new_rows is None:
            condition = f"_lookup_run >= {self.run(table)}" if keys else "true"
            [(known.new_rows,)] = self._client.native_connection.execute(
                f"SELECT count(*) FROM {self._name(table)} WHERE {condition}"  # noqa: S608 - our own names
            ).fetchall()
        else:
            known.new_rows += new_rows
        size = keys.size if keys else 0
        if (
            known.new_rows > max(_ROWS_WORTH_A_FILE, size // _SHARE_WORTH_A_FILE)
            or known.searches > _SEARCHES_WORTH_A_FILE
            or len(known.gone) > _MOST_GONE
        ):
            known.new_rows = known.searches = 0
            self._make(table)

    def _make(self, table: str) -> None:
        """Make a table's file of the rows that it has now. Loads work without."""
        file = self._folder / f"{self._client.dataset_name}.{table}.{uuid4().hex}"
        try:
            [(count, number, last)] = self._client.native_connection.execute(
                f"SELECT count(*), max(rowid), max(_lookup_run) FROM {self._name(table)}"  # noqa: S608 - our own names
            ).fetchall()
            if number is None or not can_have(number):
                return
            self._folder.mkdir(exist_ok=True)
            last = max(last or 0, self.run(table))
            # Most messages are about bookings that were written lately, and where these leave many rows
            # deleted, DuckDB gives other numbers to those behind. So the newest rows come into a later file.
            file_run = last if table in self._read() else last + 1
            size = write_sorted(file, self._sorted(table, count, file_run))
            runs = self._name(_RUNS_TABLE)
            with self._client.begin_transaction():
                connection = self._client.native_connection
                connection.execute(f"DELETE FROM {runs} WHERE table_name = ?", [table])  # noqa: S608 - our own names
                connection.execute(
                    f"INSERT INTO {runs} VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own names
                    [table, last + 1, file_run, file.name, size, count, file.name],
                )
        except Exception as error:  # noqa: BLE001 - whatever is in the way
            file.unlink(missing_ok=True)
            log.warning("warehouse.key_file_missing", table=table, why=str(error))
            return
        finally:
            self._runs = None
        for other in self._folder.glob(f"{self._client.dataset_name}.{table}.*"):
            if other != file:
                other.unlink(missing_ok=True)
        log.info("warehouse.key_file_made", table=table, rows=size)

    def _sorted(self, table: str, count: int, run: int) -> Iterator[pa.RecordBatch]:
        """Yield the entries of rows below a `_lookup_run` in their order; a part is sorted at a time."""
        parts = count // _ROWS_PER_SORT + 1
        bounds = [(1 << 32) * part // parts - (1 << 31) for part in range(parts + 1)]
        for start, end in pairwise(bounds):
            yield from self._client.native_connection.sql(
                f"SELECT {entry_sql('_lookup_key', 'rowid')} AS entry FROM {self._name(table)}"  # noqa: S608 - our own names
                f" WHERE _lookup_key BETWEEN {start} AND {end - 1} AND _lookup_run < {run} ORDER BY entry"
            ).to_arrow_reader(_ROWS_PER_BATCH)

    def _read(self) -> dict[str, tuple[int, int]]:
        """Return the runs of all tables, and open their files, once in a turn."""
        if self._runs is not None:
            return self._runs
        connection, runs_table = self._client.native_connection, self._name(_RUNS_TABLE)
        connection.execute(f"CREATE TABLE IF NOT EXISTS {runs_table} ({_COLUMNS})")
        rows = connection.execute(
            f"SELECT table_name, run, file_run, file, entries, stored_rows, last_write FROM {runs_table}"  # noqa: S608 - our own names
        ).fetchall()
        self._runs, self._usable = {table: (run, file_run) for table, run, file_run, *_ in rows}, {}
        for table, _, _, file, size, stored_rows, last_write in rows:
            # Otherwise another process has written, or the database was restored.
            if self._known(table).last_write != last_write:
                self._tables[table] = _Table(last_write)
            if file is None:
                continue
            if why := self._open(table, file, size, stored_rows):
                log.warning("warehouse.key_file_unused", table=table, why=f"{why}: it is made anew")
                connection.execute(f"UPDATE {runs_table} SET file = NULL WHERE table_name = ?", [table])  # noqa: S608 - our own names
                self._tables[table] = _Table(last_write)
        return self._runs

    def _open(self, table: str, file: str, size: int, stored_rows: int) -> str | None:
        """Open a table's file, and return why it cannot be used, if it cannot."""
        [(count,)] = self._client.native_connection.execute(
            f"SELECT count(*) FROM {self._name(table)}"  # noqa: S608 - our own names
        ).fetchall()
        if count != stored_rows:
            return f"the table has {count} rows, and had {stored_rows} after the last load"
        if self._opened.get(table, ("", None))[0] != file:
            try:
                self._opened[table] = file, SortedKeys(self._folder / file, size)
            except OSError as error:
                return str(error)
        self._usable[table] = self._opened[table][1]
        return None

    def _known(self, table: str) -> _Table:
        return self._tables.setdefault(table, _Table())

    def _name(self, table: str) -> str:
        return self._client.make_qualified_table_name(table)
