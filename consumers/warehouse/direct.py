"""Tables that one transaction writes, and those of PostgreSQL.

A load package of dlt costs a quarter of a second of processor time whatever is in it, and its merge reads the
whole table. So dlt makes the tables and keeps its notes about them, and rows are written over its connection:
those of a load and its row in `_dlt_loads` become visible together, or none of them does.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import dlt
import pyarrow as pa
import structlog
from dlt.destinations.job_client_impl import SqlJobClientBase

from consumers.rows import TABLES, Table, retyped_columns
from consumers.warehouse.copy_format import copy_file
from consumers.warehouse.locks import Fence, fenced
from consumers.warehouse.tables import (
    ROWS_PER_FETCH,
    VALUES_PER_QUERY,
    Tables,
    Values,
    later_load_id,
)
from ingest.destinations import Destination
from ingest.errors import WarehouseUnavailable
from ingest.warehouse.booking_pages import NAME_BEGIN, SEARCHED_TEXT
from ingest.warehouse.destination import keep_values
from ingest.warehouse.errors import has_type_named, translated

log = structlog.get_logger()

_LOADS_TABLE = "_dlt_loads"
PAYLOADS = "booking_events"  # the table with nearly all the bytes of a warehouse
ID_COLUMNS = {table.name: table.id_column for table in TABLES}
# Trigrams, by which parts of texts are found, and the schema of the extension that has them:
# https://www.postgresql.org/docs/current/pgtrgm.html
_TRIGRAMS = "gin_trgm_ops"
_SCHEMA_OF_TRIGRAMS = (
    "SELECT quote_ident(nspname) FROM pg_catalog.pg_extension AS extension"
    " JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = extension.extnamespace"
    " WHERE extname = 'pg_trgm'"
)
_COMPRESSIONS = 140_000  # the server's version that has several
# The server compresses by lz4 in half of the time of its own method, to nearly the same size. What a user has
# chosen stays.
_COMPRESSIBLE = """
SELECT 1 FROM pg_catalog.pg_attribute AS stored JOIN pg_catalog.pg_settings AS setting
  ON setting.name = 'default_toast_compression' AND 'lz4' = ANY(enumvals)
WHERE attrelid = to_regclass(%s) AND attname = %s AND attcompression = ''
"""
_LOCK_SECONDS = 2  # all wait who come after somebody who waits for this lock
# The table, the end of the name, and the definition of each index: those by which loads find rows, and those
# by which readers do. A hash, a beginning and trigrams take any value, however long: loads must not be
# refused for what only readers need.
_INDEXES = (
    *((table, column, f"btree ({column})") for table, column in ID_COLUMNS.items()),
    (_LOADS_TABLE, "load_id", "btree (load_id)"),
    ("bookings", "vendor_account_booking_id", "btree (vendor, account, booking_id)"),
    *(
        ("bookings", name, f"btree ({name})")
        for name in ("loaded_at", "starts_at", "created_at", "updated_at")
    ),
    ("bookings", "account_status_loaded_at", "btree (account, status, loaded_at)"),
    ("bookings", "customer_name", f"btree ({NAME_BEGIN})"),
    ("bookings", "search", f"gin ({SEARCHED_TEXT} {_TRIGRAMS})"),
    ("booking_events", "subject", "hash (subject)"),
    ("booking_events", "received_at", "btree (received_at)"),
    (
        "booking_events",
        "account_received_at",
        "btree (vendor, account, received_at) INCLUDE (type, signed_by)",
    ),
)


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
        loads = self._client.make_qualified_table_name(_LOADS_TABLE)
        with self._transaction():
            newest = self._client.execute_sql(f"SELECT max(load_id) FROM {loads}")  # noqa: S608 - our own names
            load_id = later_load_id(newest[0][0] if newest else None)
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
        name, ordered = self._client.make_qualified_table_name(table), sorted(set(values))
        sql = f"SELECT {', '.join(columns)} FROM {name} WHERE {column} = ANY(%s::text[])"  # noqa: S608 - our own names
        for start in range(0, len(ordered), VALUES_PER_QUERY):
            with self._client.execute_query(sql, ordered[start : start + VALUES_PER_QUERY]) as cursor:
                while rows := cursor.fetchmany(ROWS_PER_FETCH):
                    yield from rows

    def has(self, table: str) -> bool:
        """Return whether there is a table of this name, without a lock on it."""
        name = self._client.make_qualified_table_name(table)
        return self._client.execute_sql("SELECT to_regclass(%s)::text", name) != [(None,)]

    def _transaction(self) -> AbstractContextManager[Any]:
        return nullcontext()  # the turn's

    def _make_indexes(self) -> None:
        """Make the indexes that are missing. Without them loads and readers are only slower."""
        self._compress_payloads()
        with self.pipeline.sql_client() as client:
            dataset = client.fully_qualified_dataset_name()
            for table, end, definition in _INDEXES:
                index = client.escape_column_name(f"ingest_{table}_{end}")
                try:
                    if client.execute_sql("SELECT to_regclass(%s)::text", f"{dataset}.{index}") != [(None,)]:
                        continue
                    name = client.make_qualified_table_name(table)
                    log.info("warehouse.index_made", table=table, index=end)
                    if _TRIGRAMS in definition:
                        client.execute_sql("CREATE EXTENSION IF NOT EXISTS pg_trgm")
                        [(schema,)] = client.execute_sql(_SCHEMA_OF_TRIGRAMS) or [("public",)]
                        definition = definition.replace(_TRIGRAMS, f"{schema}.{_TRIGRAMS}")  # noqa: PLW2901
                    client.execute_sql(f"CREATE INDEX IF NOT EXISTS {index} ON {name} USING {definition}")
                except Exception as error:  # noqa: BLE001 - whatever is in the way, loads work without
                    log.warning("warehouse.index_missing", table=table, index=end, why=str(error))

    def _compress_payloads(self) -> None:
        """Let the server compress the payloads that are written from now on by lz4, where it has it."""
        name = self._client.make_qualified_table_name(PAYLOADS)
        try:
            with self.pipeline.sql_client() as client:
                if client.native_connection.server_version >= _COMPRESSIONS and client.execute_sql(
                    _COMPRESSIBLE, name, "data"
                ):
                    client.execute_sql(
                        f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s';"
                        f" ALTER TABLE {name} ALTER COLUMN data SET COMPRESSION lz4"
                    )
        except Exception as error:  # noqa: BLE001 - whatever is in the way, loads work without
            log.warning("warehouse.payloads_not_compressed", why=str(error))

    def _delete(self, table: Table, rows: pa.Table) -> None:
        name = self._client.make_qualified_table_name(table.name)
        arrays = ", ".join(["%s::text[]"] * len(table.key))
        columns = ", ".join(table.key)
        same = " AND ".join(f"stored.{column} = new.{column}" for column in table.key)
        sql = f"DELETE FROM {name} AS stored USING unnest({arrays}) AS new({columns}) WHERE {same}"  # noqa: S608 - our own names
        self._client.execute_sql(sql, *(rows[column].to_pylist() for column in table.key))

    def _insert(self, table: str, rows: pa.Table) -> None:
        name = self._client.make_qualified_table_name(table)
        columns = ", ".join(rows.column_names)
        try:
            with self._client.native_connection.cursor() as cursor:
                # From now on nobody changes the types.
                cursor.execute(f"SELECT {columns} FROM {name} LIMIT 0")  # noqa: S608 - our own names
                form, file = copy_file(rows, [column.type_code for column in cursor.description or ()])
                cursor.copy_expert(f"COPY {name} ({columns}) FROM STDIN WITH (FORMAT {form})", file)
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
