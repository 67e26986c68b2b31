"""The tables of a lake, which deltalake reads and writes.

dlt would write a load as several files beside the table, and merge by reading the whole table. Each table is
read at one version of its log, and written as the version that follows. The store accepts one such version
only, so nobody else can have changed the table in between: what was decided by the rows that were read is
still right when it is written. A consumer that was frozen, and whose partitions others have taken over, is
refused. https://github.com/delta-io/delta/blob/master/PROTOCOL.md#delta-log-entries
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import dlt
import duckdb
import numpy as np
import pyarrow as pa
import structlog
from deltalake import CommitProperties, DeltaTable, Field, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError
from dlt.common.storages.load_package import create_load_id
from pyarrow.dataset import FileSystemDataset

from consumers.rows import TABLES, Table
from consumers.warehouse.locks import Fence
from consumers.warehouse.tables import ROWS_PER_FETCH, Tables, Values
from ingest.errors import LoadedMeanwhile, WarehouseUnavailable
from ingest.settings import Settings
from ingest.warehouse.lake import JSON_FIELD, Lake, dataset_of, schema_of

log = structlog.get_logger()

_LOADS_TABLE = "_ingest_loads"
_LOADS = pa.schema(
    [
        pa.field("load_id", pa.string()),
        pa.field("status", pa.int64()),
        pa.field("inserted_at", pa.timestamp("us", tz="UTC")),
    ]
)
# The columns of which the log has each file's least and greatest value.
_STATISTICS = {
    "booking_events": "vendor,account,time,received_at,loaded_at",
    "bookings": "vendor,account,starts_at,updated_at,loaded_at",
    "dead_letters": "happened_at,loaded_at",
    "reconciliations": "vendor,account,started_at",
    _LOADS_TABLE: "load_id,inserted_at",
}
# https://docs.delta.io/table-properties/
_PROPERTIES = {
    "delta.checkpointInterval": "20",  # loads begin by reading the log since the last checkpoint
    "delta.logRetentionDuration": "interval 7 days",
    "delta.deletedFileRetentionDuration": "interval 1 days",  # a file of bookings is replaced again and again
}
# A change of one booking writes its file anew, so these files are smaller than what readers like best.
_FILE_BYTES = {"bookings": 16 * 1024 * 1024}
_COMPACTION = "ingest/compaction"


class LakeTables(Tables):
    """Delta tables, each of which is read once in a turn, and written as the version after that."""

    notes_table = loads_table = _LOADS_TABLE

    def __init__(self, pipeline: dlt.Pipeline, folder: Path, settings: Settings) -> None:
        super().__init__(pipeline, folder, settings.warehouse.kind)
        self._settings = settings
        self._lake = Lake(settings.warehouse)
        self._versions: dict[str, DeltaTable] = {}  # of this turn
        self._duckdb = duckdb.connect(config={"memory_limit": f"{settings.consumer.duckdb_bytes} B"})
        self._ids = _FileIds(self._duckdb)

    @contextmanager
    def turn(self, patience: float) -> Iterator[Fence]:  # noqa: ARG002 - nobody is waited for
        """Read the newest version of each table that the turn needs."""
        self._lake = Lake(self._settings.warehouse)  # tokens of a cloud may be new
        self._versions.clear()
        yield Fence(None, self.pipeline.dataset_name)

    def columns(self, tables: Iterable[str]) -> dict[str, set[str]]:
        """Return the columns of those of these tables that exist."""
        versions = {name: version for name in tables if (version := self._find(name))}
        return {name: set(schema_of(version).names) for name, version in versions.items()}

    def forget_made(self) -> None:
        """Do nothing: whether a table is there, its log says."""

    def make(self, empty: Mapping[str, pa.Table]) -> None:
        """Make missing tables and columns. Raises WarehouseUnavailable."""
        for name in [*empty, _LOADS_TABLE]:
            schema = _json_marked(name, empty[name].schema) if name in empty else _LOADS
            version = self._find(name)
            if version is None:
                properties = {**_PROPERTIES, "delta.dataSkippingStatsColumns": _STATISTICS[name]}
                url, options = self._lake.url(name), self._lake.options
                with _one_writer(name):
                    DeltaTable.create(url, schema, configuration=properties, storage_options=options)
                continue
            existing = schema_of(version).names
            missing = [Field.from_arrow(field) for field in schema if field.name not in existing]
            if missing:
                with _one_writer(name):
                    version.alter.add_columns(missing)
        self._versions.clear()

    def select(
        self, columns: Sequence[str], table: str, column: str, values: Iterable[str]
    ) -> Iterator[Values]:
        """Yield columns of the rows in which one column has one of these values; within a turn."""
        wanted = sorted(set(values))
        if not wanted:
            return
        files = self._ids.files_with(table, dataset_of(self._version(table)), column, wanted)
        if files is None:
            return
        self._duckdb.register("ingest_files", files)
        self._duckdb.register("ingest_ids", pa.table({"id": pa.array(wanted)}))
        cursor = self._duckdb.execute(
            f"SELECT {', '.join(columns)} FROM ingest_files WHERE {column} IN (SELECT id FROM ingest_ids)"  # noqa: S608 - our own names
        )
        while rows := cursor.fetchmany(ROWS_PER_FETCH):
            yield from rows

    def write(self, rows: Mapping[str, pa.Table]) -> str:
        """Write rows, by table, and note the load, last of all; return its id.

        Raises LoadedMeanwhile where somebody else has written a table since the turn read it, and what
        deltalake raises. What was written by then is right, and stays.
        """
        load_id = create_load_id()
        for table in TABLES:
            new = rows.get(table.name)
            if new is not None and new.num_rows:
                self._write_table(table, new)
        note = {"load_id": load_id, "status": 0, "inserted_at": datetime.now(UTC)}
        with _one_writer(_LOADS_TABLE):
            self._append(_LOADS_TABLE, pa.Table.from_pylist([note], schema=_LOADS))
        return load_id

    def maintain(self, every: timedelta) -> None:
        """Make few large files of many small ones, and delete files that are replaced, where it is time.

        Raises what deltalake raises, and LoadedMeanwhile.
        """
        lake = Lake(self._settings.warehouse)
        for name in lake.names():
            table = lake.open(name)
            if (
                table is None
                or (table.transaction_version(_COMPACTION) or 0) > time.time() - every.total_seconds()
            ):
                continue
            note = Transaction(_COMPACTION, int(time.time()))
            with _one_writer(name):
                counts = table.optimize.compact(
                    target_size=_FILE_BYTES.get(name),
                    commit_properties=CommitProperties(max_commit_retries=0, app_transactions=[note]),
                )
                deleted = table.vacuum(dry_run=False, full=True)
            table.cleanup_metadata()
            log.info(
                "lake.compacted",
                table=name,
                removed=counts["numFilesRemoved"],
                added=counts["numFilesAdded"],
                deleted=len(deleted),
            )

    def _write_table(self, table: Table, rows: pa.Table) -> None:
        absent = self._absent(table, rows)
        with _one_writer(table.name):
            if not table.replaces or absent.num_rows == rows.num_rows:
                if absent.num_rows:
                    self._append(table.name, absent)
                return
            keys = zip(*(rows[column].to_pylist() for column in table.key), strict=True)
            write_deltalake(
                self._version(table.name),
                rows,
                mode="overwrite",
                predicate=_condition(table.key, keys),
                commit_properties=_NEXT_VERSION,
            )

    def _append(self, table: str, rows: pa.Table) -> None:
        write_deltalake(self._version(table), rows, mode="append", commit_properties=_NEXT_VERSION)

    def _find(self, table: str) -> DeltaTable | None:
        """Return the version of a table that the turn reads; None where there is no such table."""
        if table not in self._versions and (version := self._lake.open(table)):
            self._versions[table] = version
        return self._versions.get(table)

    def _version(self, table: str) -> DeltaTable:
        version = self._find(table)
        if version is None:
            raise WarehouseUnavailable(f"table {table} is gone: it is made anew")
        return version


# Without retries a commit is either the version after the one that was read, or refused.
_NEXT_VERSION = CommitProperties(max_commit_retries=0)


@contextmanager
def _one_writer(table: str) -> Iterator[None]:
    try:
        yield
    except CommitFailedError as error:
        raise LoadedMeanwhile(f"table {table}: somebody else has changed it meanwhile ({error})") from None


class _FileIds:
    """Which files of a table have which ids: 32 bits of each, sorted.

    A file never changes, so it is read once.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._duckdb = connection
        self._hashes: dict[str, dict[str, np.ndarray[Any, Any]]] = {}  # by table and file

    def files_with(
        self, table: str, dataset: FileSystemDataset, column: str, ids: Sequence[str]
    ) -> FileSystemDataset | None:
        """Return the files in which one of these ids may be, None where there is no such file."""
        files = {fragment.path: fragment for fragment in dataset.get_fragments()}
        known = self._hashes.get(table, {})
        self._hashes[table] = known = {
            path: known[path]
            if path in known
            else self._hashes_of(fragment.to_table(columns=[column])[column])
            for path, fragment in files.items()
        }
        wanted = self._hashes_of(pa.array(ids))
        fragments = [fragment for path, fragment in files.items() if _have_common(known[path], wanted)]
        if not fragments:
            return None
        return FileSystemDataset(fragments, dataset.schema, dataset.format, dataset.filesystem)

    def _hashes_of(self, ids: Any) -> np.ndarray[Any, Any]:
        self._duckdb.register("ingest_hashed", pa.table({"id": ids}))
        answer = self._duckdb.execute(
            "SELECT (hash(id) >> 32)::UINTEGER AS hash FROM ingest_hashed WHERE id IS NOT NULL ORDER BY hash"
        )
        hashes = np.asarray(answer.fetchnumpy()["hash"])
        self._duckdb.unregister("ingest_hashed")
        return hashes


def _have_common(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> bool:
    """Return whether two sorted arrays have a common value."""
    if not len(first):
        return False
    places = np.searchsorted(first, second).clip(max=len(first) - 1)
    return bool((first[places] == second).any())


def _json_marked(table: str, schema: pa.Schema) -> pa.Schema:
    """Return a schema in which JSON columns are marked, since Delta has no type for them."""
    json = {column for each in TABLES if each.name == table for column in each.json}
    return pa.schema([field.with_metadata(JSON_FIELD) if field.name in json else field for field in schema])


def _condition(columns: Sequence[str], keys: Iterable[tuple[Any, ...]]) -> str:
    """Return the SQL condition of rows with these keys."""
    *others, last = columns
    groups = []
    for prefix, group in groupby(sorted(keys), itemgetter(slice(len(others)))):
        equal = [f"{column} = {_literal(value)}" for column, value in zip(others, prefix, strict=True)]
        values = ", ".join(_literal(key[-1]) for key in group)
        groups.append(" AND ".join([*equal, f"{last} IN ({values})"]))
    return " OR ".join(f"({group})" for group in groups)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
