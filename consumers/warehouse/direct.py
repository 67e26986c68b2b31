"""Tables of DuckDB and PostgreSQL, where one transaction writes a load.

A load package of dlt costs a quarter of a second of processor time whatever is in it, and its merge reads the
whole table. So dlt makes the tables and keeps its notes about them, and rows are written over its connection:
those of a load and its row in `_dlt_loads` become visible together, or none of them does.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import dlt
import pyarrow as pa
import pyarrow.csv
import structlog
from dlt.common.storages.load_package import create_load_id
from dlt.destinations.job_client_impl import SqlJobClientBase

from consumers.rows import TABLES, Table, retyped_columns
from consumers.warehouse.locks import Fence, fenced
from consumers.warehouse.tables import Tables, Values, columns_of, select_by_marks
from ingest.destinations import Destination
from ingest.errors import WarehouseUnavailable
from ingest.warehouse.destination import keep_values
from ingest.warehouse.errors import has_type_named, translated

log = structlog.get_logger()

_LOADS_TABLE = "_dlt_loads"
_ID_COLUMNS = {table.name: table.id_column for table in TABLES}
_ROWS_PER_FETCH = 16  # a row may be as large as a body
_ROWS_PER_ROW_GROUP = 122_880  # https://duckdb.org/docs/stable/internals/storage
_ROWS_WORTH_A_ROW_GROUP = 2  # to read one row by its number takes a third of the time of a whole row group
_KEYS_PER_TURN = 250_000  # which take about a fifth of a second


class DirectTables(Tables, ABC):
    """Tables that are read and written over one connection, which is open during a turn."""

    def __init__(self, pipeline: dlt.Pipeline, folder: Path, kind: Destination) -> None:
        super().__init__(pipeline, folder, kind)
        # Made once, because dlt looks up every setting for it. The schema is whole when the tables are made.
        self._job_client = cast(SqlJobClientBase, pipeline.destination_client())
        self._client = self._job_client.sql_client

    def make(self, empty: Mapping[str, pa.Table]) -> None:
        """Make missing tables and columns by a load of dlt, and what finds rows quickly."""
        self._load(empty, dict.fromkeys(empty, "append"))
        self._job_client = cast(SqlJobClientBase, self.pipeline.destination_client())
        self._job_client.sql_client = self._client
        self._make_indexes()

    def write(self, rows: Mapping[str, pa.Table]) -> str:
        """Write rows, by table, in one transaction, and return the load's id.

        Raises LoadRefused, RowsTooLarge, OutOfMemory, WarehouseUnavailable.
        """
        load_id = create_load_id()
        with self._transaction():
            for table in TABLES:
                if table.name not in rows:
                    continue
                with translated(f"table {table.name}: "):
                    if table.replaces:
                        self._delete(table, rows[table.name])
                        self._insert(table.name, rows[table.name])
                    else:
                        self._insert(table.name, self._absent(table, rows[table.name]))
            self._job_client.complete_load(load_id)
        return load_id

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[Any]:
        """Begin a transaction that ends with the context."""

    @abstractmethod
    def _make_indexes(self) -> None:
        """Make what finds rows by their ids, where it is missing."""

    @abstractmethod
    def _delete(self, table: Table, rows: pa.Table) -> None:
        """Delete the rows that have the keys of these."""

    @abstractmethod
    def _insert(self, table: str, rows: pa.Table) -> None:
        """Insert rows."""


class DuckDBTables(DirectTables):
    """Tables of a DuckDB file.

    DuckDB finds a row by reading a whole column, and its indexes would have to fit into memory. So each table
    has a column `_lookup_key`, 32 bits made of the id, which is read several times as fast as the ids. Rows
    that other releases or users wrote have none: they are found by their ids, and get it a part at a time.
    """

    def __init__(self, pipeline: dlt.Pipeline, folder: Path, kind: Destination) -> None:
        super().__init__(pipeline, folder, kind)
        self._keyless = set(_ID_COLUMNS)  # tables that may have rows without a key
        # By table and id. They hold until something is written.
        self._row_numbers: dict[tuple[str, str], list[int]] = {}

    @contextmanager
    def turn(self, patience: float) -> Iterator[Fence]:  # noqa: ARG002 - the file's lock was waited for
        """Keep the connection open. Nothing else can write meanwhile."""
        self._row_numbers.clear()
        with translated():
            self._client.open_connection()
        try:
            yield Fence(None, self.pipeline.dataset_name)
        finally:
            self._client.close_connection()

    def select(
        self, columns: Sequence[str], table: str, column: str, values: Iterable[str]
    ) -> Iterator[Values]:
        """Yield columns of the rows in which one column has one of these values, by one scan."""
        if column != _ID_COLUMNS.get(table):
            yield from select_by_marks(self._client, columns, table, column, values)
            return
        ids = set(values)
        found: dict[tuple[str, str], list[int]] = {(table, value): [] for value in ids}
        connection, name = self._client.native_connection, self._client.make_qualified_table_name(table)
        sql = f"SELECT {', '.join([column, 'rowid', *columns])} FROM {name} WHERE rowid"  # noqa: S608 - our own names
        for numbers in self._parts(self._find(table, ids)):
            if len(numbers) == 1:
                cursor = connection.execute(f"{sql} = ?", numbers)
            else:
                connection.register("ingest_numbers", _numbers_table(numbers))
                cursor = connection.execute(f"{sql} IN (SELECT number FROM ingest_numbers)")  # noqa: S608 - our own names
            while rows := cursor.fetchmany(_ROWS_PER_FETCH):
                for value, number, *row in rows:
                    if value in ids:
                        found[table, value].append(number)
                        yield row
        self._row_numbers |= found

    def write(self, rows: Mapping[str, pa.Table]) -> str:
        """Write rows as `DirectTables.write` does, then give a part of the rows without a key theirs."""
        try:
            load_id = super().write(rows)
        finally:
            self._row_numbers.clear()
        for table in list(self._keyless):
            name, column = self._client.make_qualified_table_name(table), _ID_COLUMNS[table]
            [(count,)] = self._client.native_connection.execute(
                f"UPDATE {name} SET _lookup_key = {_key_of(column)} WHERE rowid IN"  # noqa: S608 - our own names
                f" (SELECT rowid FROM {name} WHERE _lookup_key IS NULL AND {column} IS NOT NULL"
                f" LIMIT {_KEYS_PER_TURN})"
            ).fetchall()
            if count < _KEYS_PER_TURN:
                self._keyless.discard(table)
            if count:
                log.info("warehouse.keys_filled", table=table, rows=count)
        return load_id

    def _find(self, table: str, ids: set[str]) -> list[int]:
        """Return the numbers of the rows with these ids, and perhaps of a few others."""
        if all((table, value) in self._row_numbers for value in ids):
            return [number for value in ids for number in self._row_numbers[table, value]]
        connection, name = self._client.native_connection, self._client.make_qualified_table_name(table)
        connection.register("ingest_ids", pa.table({"id": pa.array(ids, pa.string())}))
        # A join on the key alone reads nothing else of the rows that do not match.
        candidates = connection.execute(
            f"""WITH wanted AS MATERIALIZED (SELECT id, {_key_of("id")} AS key FROM ingest_ids)
            SELECT rowid FROM {name} WHERE _lookup_key IN (SELECT key FROM wanted)
            UNION ALL SELECT rowid FROM {name}
            WHERE _lookup_key IS NULL AND {_ID_COLUMNS[table]} IN (SELECT id FROM wanted)"""  # noqa: S608 - our own names
        )
        return [number for (number,) in candidates.fetchall()]

    @staticmethod
    def _parts(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
        """Yield numbers of rows that are read together: a join reads all rows of their row groups."""
        row_groups = {number // _ROWS_PER_ROW_GROUP for number in numbers}
        if len(numbers) > _ROWS_WORTH_A_ROW_GROUP * len(row_groups):
            yield numbers
        else:
            yield from ([number] for number in numbers)

    def has(self, table: str) -> bool:
        """Return whether there is a table of this name."""
        return columns_of(self._client, table) is not None

    def _transaction(self) -> AbstractContextManager[Any]:
        return self._client.begin_transaction()

    def _make_indexes(self) -> None:
        with self.pipeline.sql_client() as client:
            for table in _ID_COLUMNS:
                name = client.make_qualified_table_name(table)
                client.execute_sql(f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS _lookup_key INTEGER")
        self._keyless = set(_ID_COLUMNS)

    def _delete(self, table: Table, rows: pa.Table) -> None:
        name, keys = self._client.make_qualified_table_name(table.name), ", ".join(table.key)
        if not (numbers := self._find(table.name, _ids(table, rows))):
            return
        connection = self._client.native_connection
        connection.register("ingest_numbers", _numbers_table(numbers))
        connection.register("ingest_keys", rows.select(table.key))
        connection.execute(
            f"DELETE FROM {name} WHERE rowid IN (SELECT number FROM ingest_numbers)"  # noqa: S608 - our own names
            f" AND ({keys}) IN (SELECT {keys} FROM ingest_keys)"
        )

    def _insert(self, table: str, rows: pa.Table) -> None:
        connection, name = self._client.native_connection, self._client.make_qualified_table_name(table)
        connection.register("ingest_rows", rows)
        key = _key_of(_ID_COLUMNS[table])
        connection.execute(f"INSERT INTO {name} BY NAME SELECT *, {key} AS _lookup_key FROM ingest_rows")  # noqa: S608 - our own names


def _ids(table: Table, rows: pa.Table) -> set[str]:
    return {str(value) for value in rows[table.id_column].to_pylist()}


def _numbers_table(numbers: Sequence[int]) -> pa.Table:
    return pa.table({"number": pa.array(numbers, pa.int64())})


def _key_of(column: str) -> str:
    """Return SQL for the key of an id: bits of its MD5, which is the same in every release of DuckDB."""
    return f"((md5_number_lower({column}) % 4294967296)::BIGINT - 2147483648)::INTEGER"


class PostgresTables(DirectTables):
    """Tables of PostgreSQL, whose connection is in the transaction that holds the turn's locks."""

    @contextmanager
    def turn(self, patience: float) -> Iterator[Fence]:
        """Open a transaction for locks and rows, and commit it at the end. Raises WarehouseUnavailable."""
        with fenced(self._client, patience) as fence:
            yield fence

    def select(
        self, columns: Sequence[str], table: str, column: str, values: Iterable[str]
    ) -> Iterator[Values]:
        """Yield columns of the rows in which one column has one of these values, by an index."""
        keep_values(self._client)
        yield from select_by_marks(self._client, columns, table, column, values)

    def has(self, table: str) -> bool:
        """Return whether there is a table of this name, without a lock on it."""
        name = self._client.make_qualified_table_name(table)
        return self._client.execute_sql("SELECT to_regclass(%s)::text", name) != [(None,)]

    def _transaction(self) -> AbstractContextManager[Any]:
        return nullcontext()  # the turn's

    def _make_indexes(self) -> None:
        """Make an index on the ids of each table, where there is none. Without them loads are only slower."""
        with self.pipeline.sql_client() as client:
            for table, column in {**_ID_COLUMNS, _LOADS_TABLE: "load_id"}.items():
                index = client.escape_column_name(f"ingest_{table}_{column}")
                try:
                    dataset = client.fully_qualified_dataset_name()
                    if client.execute_sql("SELECT to_regclass(%s)::text", f"{dataset}.{index}") != [(None,)]:
                        continue
                    log.info("warehouse.index_made", table=table, column=column)
                    name = client.make_qualified_table_name(table)
                    client.execute_sql(f"CREATE INDEX IF NOT EXISTS {index} ON {name} ({column})")
                except Exception as error:  # noqa: BLE001 - whatever is in the way, loads work without
                    log.warning("warehouse.index_missing", table=table, column=column, why=str(error))

    def _delete(self, table: Table, rows: pa.Table) -> None:
        name = self._client.make_qualified_table_name(table.name)
        arrays = ", ".join(["%s::text[]"] * len(table.key))
        columns = ", ".join(table.key)
        same = " AND ".join(f"stored.{column} = new.{column}" for column in table.key)
        sql = f"DELETE FROM {name} AS stored USING unnest({arrays}) AS new({columns}) WHERE {same}"  # noqa: S608 - our own names
        self._client.execute_sql(sql, *(rows[column].to_pylist() for column in table.key))

    def _insert(self, table: str, rows: pa.Table) -> None:
        file = BytesIO()
        pyarrow.csv.write_csv(rows, file, pyarrow.csv.WriteOptions(include_header=False))
        file.seek(0)
        name = self._client.make_qualified_table_name(table)
        try:
            with self._client.native_connection.cursor() as cursor:
                columns = ", ".join(rows.column_names)
                cursor.copy_expert(f"COPY {name} ({columns}) FROM STDIN WITH (FORMAT csv)", file)
        except Exception as error:
            if has_type_named(error, {"DataError"}):
                self._check_types(table)
            raise

    def _check_types(self, table: str) -> None:
        """Raise WarehouseUnavailable where columns have types that no row fits, so that none is blamed."""
        with self.pipeline.sql_client() as client:
            types = client.execute_sql(
                "SELECT column_name, data_type FROM information_schema.columns"
                " WHERE table_schema = %s AND table_name = %s",
                client.dataset_name,
                table,
            )
        if retyped := retyped_columns(table, {str(column): str(name) for column, name in types or ()}):
            raise WarehouseUnavailable(
                f"table {table}: columns have another type than loads write, change them back:"
                f" {', '.join(retyped)}"
            )
