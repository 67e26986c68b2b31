"""The tables of a destination, by what every destination of dlt has: load packages and SQL."""

import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
import structlog
from dlt.common.configuration.utils import get_resolved_traces
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.storages.load_package import create_load_id
from dlt.destinations.sql_client import SqlClientBase
from dlt.extract import DltResource

from consumers.rows import TABLES, Table, dlt_columns, plain_rows
from consumers.warehouse.lease import Lease
from consumers.warehouse.locks import Fence
from consumers.warehouse.merge_bounds import MergeBounds
from consumers.warehouse.views import view_queries
from ingest.destinations import Destination, RowFormat
from ingest.errors import ConfigurationError, WarehouseUnavailable
from ingest.warehouse.destination import keep_values

log = structlog.get_logger()

VALUES_PER_QUERY = 500
ROWS_PER_FETCH = 16  # a row may be as large as a body

Values = Sequence[Any]


class Tables:
    """The tables of a destination, which dlt's load packages write.

    `notes_table` has a note about the tables that were made, and `loads_table` each load, noted last of all.
    """

    notes_table = "_dlt_version"
    loads_table = "_dlt_loads"

    def __init__(
        self, pipeline: dlt.Pipeline, folder: Path, kind: Destination, lease: Lease | None = None
    ) -> None:
        """`folder` is the pipeline's working folder. Another pipeline may take the place of this one.

        `lease` is held in each turn, and guards the pipeline's destination. Merges by that destination get
        bounds. Raises ConfigurationError where rows cannot be replaced.
        """
        self.pipeline, self._folder, self._kind, self._lease = pipeline, folder, kind, lease
        self._bounds = MergeBounds(kind.merge_times)
        self._bounds.apply_to(pipeline.destination)
        self._merges = {table.name: _merge(table, pipeline, kind) for table in TABLES}

    @contextmanager
    def turn(self, patience: float) -> Iterator[Fence]:
        """Return the locks of a turn, which wait `patience` seconds for others, where there are locks.

        Where there is a lease, it is held instead. Raises WarehouseUnavailable.
        """
        with self._lease.held(self.pipeline.sql_client(), patience) if self._lease else nullcontext():
            yield Fence(None, self.pipeline.dataset_name)

    def has(self, table: str) -> bool:
        """Return whether there is a table of this name; within a turn."""
        return table in self.columns([table])

    def columns(self, tables: Iterable[str]) -> dict[str, set[str]]:
        """Return the columns of those of these tables that exist, in lower case."""
        with self.pipeline.sql_client() as client:
            columns = {name: columns_of(client, name) for name in tables}
        return {name: of_table for name, of_table in columns.items() if of_table is not None}

    def forget_made(self) -> None:
        """Delete dlt's note that the pipeline's tables exist, so that the next load makes them."""
        with self.pipeline.sql_client() as client:
            notes = client.make_qualified_table_name(self.notes_table)
            client.execute_sql(f"DELETE FROM {notes} WHERE schema_name = %s", self.pipeline.pipeline_name)  # noqa: S608 - our own names

    def drop(self) -> None:
        """Drop the dataset, the staging dataset of this pipeline, and its files in the staging bucket."""
        with self.pipeline.destination_client() as client:
            client.drop_storage()
        _, bucket = self.pipeline._get_destination_clients()  # noqa: SLF001 - dlt has no other way to it
        if bucket:
            with bucket:
                bucket.drop_storage()

    def maintain(self, every: timedelta) -> None:
        """Do what has to be done to the tables `every` so often: nothing, where the destination does it."""

    def select(
        self, columns: Sequence[str], table: str, column: str, values: Iterable[str]
    ) -> Iterator[Values]:
        """Yield columns of the rows in which one column has one of these values; within a turn.

        Few rows are in memory at a time where the driver can do that. Raises DatabaseUndefinedRelation where
        there is no such table.
        """
        with self.pipeline.sql_client() as client:
            keep_values(client)
            yield from select_by_marks(client, columns, table, column, values)

    def make_views(self) -> None:
        """Make the views that are missing. Without them loads work as well."""
        with self.pipeline.sql_client() as client:
            queries = view_queries(client.make_qualified_table_name("bookings"))
            for name, query in queries.items():
                try:
                    if columns_of(client, name) is None:
                        view = client.make_qualified_table_name(name)
                        client.execute_sql(f"CREATE VIEW {view} AS {query}")
                        log.info("warehouse.view_made", view=name)
                except Exception as error:  # noqa: BLE001 - whatever is in the way, loads work without
                    log.warning("warehouse.view_missing", view=name, why=str(error))

    def write(self, rows: Mapping[str, pa.Table]) -> str:
        """Load rows, by table, and return the load's id.

        Raises WarehouseUnavailable, LoadRefused, and what dlt raises.
        """
        new = {table.name: self._new_rows(table, rows[table.name]) for table in TABLES if table.name in rows}
        self._bounds.set_rows(new)
        if with_rows := {name: table for name, table in new.items() if table.num_rows}:
            return self._load(with_rows, self._merges)
        # To merge no rows, dlt would make an empty one, which has no key. But tables that are now appended to
        # and now merged are another schema each time, which dlt compares with the destination's.
        return self._load(new, dict.fromkeys(new, "append"))

    def _new_rows(self, table: Table, rows: pa.Table) -> pa.Table:
        """Return the rows to merge.

        `delete-insert` would replace a first row that has to stay, and a merge with a bound might not find
        it.
        """
        is_insert_only = self._merges[table.name]["strategy"] == "insert-only"
        keeps_first = is_insert_only and table.name not in self._bounds.columns
        return rows if table.replaces or keeps_first else self._absent(table, rows)

    def _absent(self, table: Table, rows: pa.Table) -> pa.Table:
        """Return those of the rows whose keys the table does not have."""
        stored = self._stored_keys(table, {str(value) for value in rows[table.id_column].to_pylist()})
        if not stored:
            return rows
        keys = zip(*(rows[column].to_pylist() for column in table.key), strict=True)
        return rows.filter(pa.array([key not in stored for key in keys]))

    def _stored_keys(self, table: Table, ids: set[str]) -> set[tuple[Any, ...]]:
        """Return the keys of the rows that have one of these ids.

        Mostly there are none, and the column of the ids is the only one that is read.
        """
        id_column = table.id_column
        stored_ids = {str(row_id) for (row_id,) in self.select((id_column,), table.name, id_column, ids)}
        if not stored_ids:
            return set()
        return {tuple(key) for key in self.select(table.key, table.name, id_column, stored_ids)}

    def make(self, empty: Mapping[str, pa.Table]) -> None:
        """Make missing tables and columns, by a load of these tables without rows. Raises as `write` does."""
        self.write(empty)

    def _load(self, rows: Mapping[str, pa.Table], dispositions: Mapping[str, Any]) -> str:
        file_format: Any = self._kind.staged_format if self.pipeline.staging else None
        resources = [
            resource_of(table, rows[table.name], self._kind).apply_hints(
                write_disposition=dispositions[table.name], file_format=file_format
            )
            for table in TABLES
            if table.name in rows
        ]
        extracted = self.pipeline.extract(resources)
        self.pipeline.normalize()
        info = self.pipeline.load()
        if set(info.loads_ids) != set(extracted.loads_ids) or any(
            package.state != "loaded" for package in info.load_packages
        ):
            raise WarehouseUnavailable("dlt did not load the package it was given; it is loaded again")
        get_resolved_traces().clear()  # dlt's note of every setting it read: a full memory, in time
        for stage in ("load", "normalize"):  # dlt keeps some eight files of every load
            for package in (self._folder / stage / "loaded").glob("*"):
                shutil.rmtree(package, ignore_errors=True)
        return max(extracted.loads_ids)


def later_load_id(newest: str | None) -> str:
    """Return the id of a new load, which is later than the newest one, although a clock was set back.

    What depends on a load depends on all before it, so a backup that has the newest one has to have all.
    """
    load_id = create_load_id()
    if newest is None or load_id > newest:
        return load_id
    try:
        # At random, because others may do the same at the same time.
        return f"{Decimal(newest) + Decimal(secrets.randbelow(1000) + 1) / 1_000_000:f}"
    except InvalidOperation:  # somebody else's
        return load_id


def _merge(table: Table, pipeline: dlt.Pipeline, kind: Destination) -> dict[str, Any]:
    """Return how a table is written, with the best strategy that the destination has.

    Raises ConfigurationError where it has none: dlt would append the rows.
    """
    capabilities = pipeline.destination.capabilities()
    strategies = capabilities.supported_merge_strategies or []
    if select := capabilities.merge_strategies_selector:
        schema: Any = {"name": table.name, "table_format": kind.table_format}
        strategies = select(strategies, table_schema=schema)
    for strategy in ("upsert" if table.replaces else "insert-only", "delete-insert"):
        if strategy in strategies:
            return {"disposition": "merge", "strategy": strategy}
    raise ConfigurationError(
        f"warehouse.destination {kind.name!r} cannot replace rows by their key: each version of a booking"
        " would be a row of its own"
    )


def resource_of(table: Table, rows: pa.Table, kind: Destination) -> DltResource:
    """Return a resource of rows, with the hints of their table. Raises LoadRefused."""
    columns: dict[str, Any] = {column: {"data_type": "json"} for column in table.json}
    data: list[Any] = [rows]
    if kind.rows is RowFormat.VALUES:
        columns = dlt_columns(table.name)
        data = plain_rows(table.name, rows) or [dlt.mark.materialize_table_schema()]
    for column, column_hints in kind.column_hints.get(table.name, {}).items():
        columns[column] = {**columns.get(column, {}), **column_hints}
    hints: dict[str, Any] = {"table_format": kind.table_format, "max_table_nesting": 0}
    resource: DltResource = dlt.resource(
        data, name=table.name, primary_key=table.key, columns=columns, **hints
    )
    resource.apply_hints(additional_table_hints=dict(kind.table_hints.get(table.name, {})))
    return resource


def columns_of(client: SqlClientBase[Any], table: str) -> set[str] | None:
    """Return the names of a table's columns, in lower case; None where there is no such table."""
    no_rows = f"SELECT * FROM {client.make_qualified_table_name(table)} WHERE 1 = 0"  # noqa: S608 - our own names
    try:
        with client.execute_query(no_rows) as cursor:
            return {name.lower() for name in cursor.columns_schema or ()}
    except DestinationUndefinedEntity:  # a folder without files is one, a missing table another
        return None


def select_by_marks(
    client: SqlClientBase[Any], columns: Sequence[str], table: str, column: str, values: Iterable[str]
) -> Iterator[Values]:
    """Yield columns of the rows in which one column has one of these values, by SQL that all of them have."""
    name, ordered = client.make_qualified_table_name(table), sorted(set(values))
    for start in range(0, len(ordered), VALUES_PER_QUERY):
        part = ordered[start : start + VALUES_PER_QUERY]
        marks = ", ".join(["%s"] * len(part))
        sql = f"SELECT {', '.join(columns)} FROM {name} WHERE {column} IN ({marks})"  # noqa: S608 - our own names, and marks
        with client.execute_query(sql, *part) as cursor:
            while rows := cursor.fetchmany(ROWS_PER_FETCH):
                yield from rows
