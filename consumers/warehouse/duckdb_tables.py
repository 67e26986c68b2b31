"""Tables of a DuckDB file."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import md5
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
import structlog

from consumers.rows import TABLES, Table
from consumers.warehouse.direct import ID_COLUMNS, PAYLOADS, DirectTables
from consumers.warehouse.key_files import KeyFiles
from consumers.warehouse.locks import Fence
from consumers.warehouse.sorted_keys import Entry
from consumers.warehouse.tables import Values, columns_of, select_by_marks
from ingest.destinations import Destination
from ingest.warehouse.errors import translated

log = structlog.get_logger()

_KEYS = {table.name: table.key for table in TABLES}
_ROWS_PER_FETCH = 16  # a row may be as large as a body
_ROWS_READ_ALONE = 4  # more are read by a join, which has the cost of some four of them
_FEW_IDS = 16  # they are written into a query: to make a table of them takes longer than to find their rows
_KEYS_PER_TURN = 250_000  # which take about a fifth of a second


class DuckDBTables(DirectTables):
    """Tables of a DuckDB file.

    DuckDB finds a row by reading a whole column, and its indexes would have to fit into memory. So each table
    has a column `_lookup_key`, 32 bits made of the id, which is read several times as fast as the ids. Rows
    that other releases or users wrote have none: they are found by their ids, and get it a part at a time.

    A large table also has a file of keys in their order, of all rows below some `_lookup_run`. Of these rows
    only those that the file names can have a key, and of the others all keys are read.
    """

    def __init__(self, pipeline: dlt.Pipeline, folder: Path, kind: Destination, database: Path) -> None:
        super().__init__(pipeline, folder, kind)
        self._keyless = set(ID_COLUMNS)  # tables that may have rows without a key
        self._key_files = KeyFiles(self._client, database)
        # The number and the key of each row, by table and id. They hold until something is written.
        self._found: dict[tuple[str, str], list[tuple[int, Values]]] = {}
        self._entries: dict[str, set[Entry]] = {}  # those of the key files whose rows were found
        # By the transaction that runs.
        self._deleted: dict[str, set[int]] = {}
        self._written: set[str] = set()

    @contextmanager
    def turn(self, patience: float) -> Iterator[Fence]:  # noqa: ARG002 - the file's lock was waited for
        """Keep the connection open. Nothing else can write meanwhile."""
        self._forget_rows()
        self._key_files.begin_turn()
        with translated():
            self._client.open_connection()
        try:
            yield Fence(None, self.pipeline.dataset_name)
        finally:
            self._client.close_connection()

    def select(
        self, columns: Sequence[str], table: str, column: str, values: Iterable[str]
    ) -> Iterator[Values]:
        """Yield columns of the rows in which one column has one of these values."""
        if column != ID_COLUMNS.get(table):
            yield from select_by_marks(self._client, columns, table, column, values)
            return
        ids = set(values)
        if not ids:
            return
        recent, entries = self._find(table, ids)
        found: dict[tuple[str, str], list[tuple[int, Values]]] = {(table, value): [] for value in ids}
        confirmed: set[Entry] = set()

        def read(numbers: set[int]) -> Iterator[Values]:
            for value, number, key, row_key, row in self._read(columns, table, numbers):
                confirmed.add((key, number))
                if value in ids:
                    found[table, value].append((number, row_key))
                    yield row

        numbers = recent | {number for _, number in entries}
        yield from read(numbers)
        # At the number of a deleted row may be another one, also a recent one with the same key.
        lost = {entry for entry in entries if entry not in confirmed or entry[1] in recent}
        if lost:
            yield from read(self._search(table, lost, recent) - numbers)
        self._entries.setdefault(table, set()).update(entries - lost)
        self._found |= found

    def write(self, rows: Mapping[str, pa.Table]) -> str:
        """Write rows as `DirectTables.write` does, then do a part of what makes them quick to find."""
        try:
            load_id = super().write(rows)
        finally:
            self._forget_rows()
        for table in list(self._keyless):
            self._fill_keys(table)
        for table in rows.keys() - self._keyless:
            self._key_files.make_if_due(table, len(rows[table]))
        return load_id

    def has(self, table: str) -> bool:
        """Return whether there is a table of this name."""
        return columns_of(self._client, table) is not None

    def _find(self, table: str, ids: set[str]) -> tuple[set[int], set[Entry]]:
        """Return numbers of rows among which are the recent ones with these ids, and entries of the others.

        Recent is what the table's file does not have. Where it has no file, all rows are.
        """
        if all((table, value) in self._found for value in ids):
            return {number for value in ids for number, _ in self._found[table, value]}, set()
        connection, name = self._client.native_connection, self._client.make_qualified_table_name(table)
        keys = set(map(lookup_key, ids))
        entries = self._key_files.find(table, keys)
        few_ids = list(ids) if len(ids) <= _FEW_IDS else []
        if few_ids:
            in_keys, in_ids = ", ".join(map(str, keys)), ", ".join("?" * len(ids))
        else:
            connection.register("ingest_ids", pa.table({"id": pa.array(ids, pa.string())}))
            connection.register("ingest_wanted", pa.table({"key": pa.array(keys, pa.int32())}))
            in_keys, in_ids = "SELECT key FROM ingest_wanted", "SELECT id FROM ingest_ids"
        # A join on the key alone reads nothing else of the rows that do not match.
        with_key = f"SELECT rowid FROM {name} WHERE _lookup_key IN ({in_keys})"  # noqa: S608 - our own names
        with_id = f"{ID_COLUMNS[table]} IN ({in_ids})"
        parts = [f"SELECT rowid FROM {name} WHERE _lookup_key IS NULL AND {with_id}"]  # noqa: S608 - our own names
        if self._key_files.keys(table):
            parts.append(f"{with_key} AND _lookup_run >= {self._key_files.file_run(table)}")
            parts.append(f"{with_key} AND _lookup_run IS NULL")
        else:
            parts.append(with_key)
        candidates = connection.execute(" UNION ALL ".join(parts), few_ids).fetchall()
        return {number for (number,) in candidates}, entries

    def _read(
        self, columns: Sequence[str], table: str, numbers: set[int]
    ) -> Iterator[tuple[str, int, int, Values, Values]]:
        """Yield the id, the number, the look-up key, the key and these columns of each row."""
        connection, name = self._client.native_connection, self._client.make_qualified_table_name(table)
        column, key = ID_COLUMNS[table], _KEYS[table]
        sql = (
            f"SELECT {', '.join([column, 'rowid', _key_of(column), *key, *columns])} FROM {name} WHERE rowid"  # noqa: S608 - our own names
        )
        are_few = len(numbers) <= _ROWS_READ_ALONE
        for some_numbers in [[number] for number in numbers] if are_few else [list(numbers)]:
            if are_few:
                cursor = connection.execute(f"{sql} = ?", some_numbers)
            else:
                connection.register("ingest_numbers", _numbers_table(some_numbers))
                cursor = connection.execute(f"{sql} IN (SELECT number FROM ingest_numbers)")  # noqa: S608 - our own names
            while rows := cursor.fetchmany(_ROWS_PER_FETCH):
                for value, number, lookup_key, *rest in rows:
                    yield value, number, lookup_key, rest[: len(key)], rest[len(key) :]

    def _search(self, table: str, lost: set[Entry], recent: set[int]) -> set[int]:
        """Return the numbers that rows of the file with the keys of these entries have now."""
        connection, name = self._client.native_connection, self._client.make_qualified_table_name(table)
        keys = pa.array({key for key, _ in lost}, pa.int32())
        connection.register("ingest_wanted", pa.table({"key": keys}))
        rows = connection.execute(
            f"SELECT rowid, _lookup_key FROM {name} WHERE _lookup_key IN (SELECT key FROM ingest_wanted)"  # noqa: S608 - our own names
        ).fetchall()
        present = {key for number, key in rows if number not in recent}
        self._key_files.set_gone(table, (entry for entry in lost if entry[0] not in present))
        self._key_files.count_search(table)
        return {number for number, _ in rows} - recent

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._deleted, self._written = {}, set()
        with self._client.begin_transaction():
            yield
            names = self._key_files.note_write(self._written)
        self._key_files.set_written(names)
        for table, numbers in self._deleted.items():
            entries = self._entries.get(table, set())
            self._key_files.set_gone(table, {entry for entry in entries if entry[1] in numbers})

    def _make_indexes(self) -> None:
        self._compress_payloads()
        with self.pipeline.sql_client() as client:
            for table in ID_COLUMNS:
                name = client.make_qualified_table_name(table)
                client.execute_sql(f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS _lookup_key INTEGER")
                client.execute_sql(f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS _lookup_run INTEGER")
        self._keyless = set(ID_COLUMNS)

    def _compress_payloads(self) -> None:
        """Let DuckDB compress the payloads of new tables by Zstandard.

        By itself DuckDB tries several methods on texts of this length, and takes another one: that needs
        three times as long, and several times the space.
        """
        name = self._client.make_qualified_table_name(PAYLOADS)
        try:
            with self.pipeline.sql_client() as client:
                if client.execute_sql(f"SELECT 1 FROM {name} LIMIT 1"):  # noqa: S608 - our own names
                    return
                with client.begin_transaction():
                    client.execute_sql(f"ALTER TABLE {name} DROP COLUMN data")
                    client.execute_sql(f"ALTER TABLE {name} ADD COLUMN data JSON USING COMPRESSION zstd")
        except Exception as error:  # noqa: BLE001 - whatever is in the way, loads work without
            log.warning("warehouse.payloads_not_compressed", why=str(error))

    def _fill_keys(self, table: str) -> None:
        """Give a part of the rows without a key theirs."""
        name, column = self._client.make_qualified_table_name(table), ID_COLUMNS[table]
        run = self._key_files.run(table)
        [(count,)] = self._client.native_connection.execute(
            f"UPDATE {name} SET _lookup_key = {_key_of(column)}, _lookup_run = {run} WHERE rowid IN"  # noqa: S608 - our own names
            f" (SELECT rowid FROM {name} WHERE _lookup_key IS NULL AND {column} IS NOT NULL"
            f" LIMIT {_KEYS_PER_TURN})"
        ).fetchall()
        if count < _KEYS_PER_TURN:
            self._keyless.discard(table)
        if count:
            log.info("warehouse.keys_filled", table=table, rows=count)

    def _delete(self, table: Table, rows: pa.Table) -> None:
        name = self._client.make_qualified_table_name(table.name)
        ids = {str(value) for value in rows[table.id_column].to_pylist()}
        keys = set(zip(*(rows[column].to_pylist() for column in table.key), strict=True))
        numbers = [number for number, key in self._stored_rows(table, ids) if tuple(key) in keys]
        if numbers:
            self._deleted[table.name] = set(numbers)
            self._client.native_connection.register("ingest_numbers", _numbers_table(numbers))
            self._client.execute_sql(f"DELETE FROM {name} WHERE rowid IN (SELECT number FROM ingest_numbers)")  # noqa: S608 - our own names

    def _stored_keys(self, table: Table, ids: set[str]) -> set[tuple[Any, ...]]:
        """Return the keys of the rows that have one of these ids, and read each row once."""
        return {tuple(key) for _, key in self._stored_rows(table, ids)}

    def _stored_rows(self, table: Table, ids: set[str]) -> list[tuple[int, Values]]:
        """Return the number and the key of each row that has one of these ids, also of those read before."""
        if any((table.name, value) not in self._found for value in ids):
            for _ in self.select((), table.name, table.id_column, ids):
                pass
        return [row for value in ids for row in self._found[table.name, value]]

    def _insert(self, table: str, rows: pa.Table) -> None:
        connection, name = self._client.native_connection, self._client.make_qualified_table_name(table)
        connection.register("ingest_rows", rows)
        lookup = f"{_key_of(ID_COLUMNS[table])} AS _lookup_key, {self._key_files.run(table)} AS _lookup_run"
        connection.execute(f"INSERT INTO {name} BY NAME SELECT *, {lookup} FROM ingest_rows")  # noqa: S608 - our own names
        self._written.add(table)

    def _forget_rows(self) -> None:
        self._found.clear()
        self._entries.clear()


def _numbers_table(numbers: Sequence[int]) -> pa.Table:
    return pa.table({"number": pa.array(numbers, pa.int64())})


def lookup_key(row_id: str) -> int:
    """Return the key of an id as `_key_of` does, without a query."""
    return int.from_bytes(md5(row_id.encode(), usedforsecurity=False).digest()[8:12], "little") - (1 << 31)


def _key_of(column: str) -> str:
    """Return SQL for the key of an id: bits of its MD5, which is the same in every release of DuckDB."""
    return f"((md5_number_lower({column}) % 4294967296)::BIGINT - 2147483648)::INTEGER"
