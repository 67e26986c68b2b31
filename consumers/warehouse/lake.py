"""The tables of a lake, which a library of their format reads and writes.

dlt would write a load as several files beside the tables, and merge by reading whole tables. Each table is
read at one version in a turn, and written as the version after that. A consumer that was frozen, and whose
partitions others have taken over, is refused.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
import duckdb
import numpy as np
import pyarrow as pa
import structlog
from pyarrow.dataset import FileSystemDataset, ParquetFileFragment

from consumers.rows import TABLES, Table, arrow_schema
from consumers.warehouse.lake_formats import lake_writer
from consumers.warehouse.lake_writer import with_json_marked
from consumers.warehouse.locks import Fence
from consumers.warehouse.tables import ROWS_PER_FETCH, Tables, Values, later_load_id
from ingest.errors import LoadedMeanwhile, WarehouseUnavailable
from ingest.settings import Settings

log = structlog.get_logger()

_LOADS = arrow_schema(load_id=pa.string(), status=pa.int64(), inserted_at=pa.timestamp("us", tz="UTC"))
_JSON = {table.name: table.json for table in TABLES}
# The columns of which the format has each file's least and greatest value.
_STATISTICS = {
    "booking_events": ("vendor", "account", "time", "received_at", "loaded_at"),
    "bookings": ("vendor", "account", "starts_at", "updated_at", "loaded_at"),
    "dead_letters": ("happened_at", "loaded_at"),
    "reconciliations": ("vendor", "account", "started_at"),
    "completeness": ("vendor", "account", "hour"),
    "gaps": ("vendor", "account", "from_at"),
    "freshness": ("vendor", "account", "hour"),
}
_FILES_AT_ONCE = 8  # which take about a tenth of a gigabyte, unpacked

_Array = np.ndarray[Any, Any]


class LakeTables(Tables):
    """Tables of files, each of which is read once in a turn, and written as the version after that."""

    def __init__(self, pipeline: dlt.Pipeline, folder: Path, settings: Settings) -> None:
        super().__init__(pipeline, folder, settings.warehouse.kind)
        self._settings = settings
        self._newest_load: str | None = None  # of this process
        self._writer = lake_writer(settings.warehouse)
        self.notes_table = self.loads_table = f"{self._writer.lake.notes_prefix}loads"
        self._versions: dict[str, Any] = {}  # of this turn, as the format's library has them
        self._duckdb = duckdb.connect(config={"memory_limit": f"{settings.consumer.duckdb_bytes} B"})
        self._ids = _FileIds(self._duckdb)

    @contextmanager
    def turn(self, patience: float) -> Iterator[Fence]:  # noqa: ARG002 - nobody is waited for
        """Read the newest version of each table that the turn needs."""
        self._writer = lake_writer(self._settings.warehouse)  # tokens of a cloud may be new
        self._versions.clear()
        yield Fence(None, self.pipeline.dataset_name)

    def columns(self, tables: Iterable[str]) -> dict[str, set[str]]:
        """Return the columns of those of these tables that exist."""
        versions = {name: version for name in tables if (version := self._find(name))}
        return {name: set(self._writer.lake.schema_of(version).names) for name, version in versions.items()}

    def forget_made(self) -> None:
        """Do nothing: whether a table is there is seen at each turn."""

    def make(self, empty: Mapping[str, pa.Table]) -> None:
        """Make missing tables and columns.

        Raises WarehouseUnavailable; ConfigurationError where a new lake's store is none for it.
        """
        is_new = self._find(self.loads_table) is None
        schemas = {name: with_json_marked(rows.schema, _JSON[name]) for name, rows in empty.items()}
        for name, schema in [*schemas.items(), (self.loads_table, _LOADS)]:
            if version := self._find(name):
                self._writer.add_missing_columns(version, schema)
            else:
                self._writer.create(name, schema, _STATISTICS.get(name, _LOADS.names))
        if is_new:
            self._writer.check_refusal(self.loads_table)
        self._versions.clear()

    def select(
        self, columns: Sequence[str], table: str, column: str, values: Iterable[str]
    ) -> Iterator[Values]:
        """Yield columns of the rows in which one column has one of these values; within a turn."""
        wanted = sorted(set(values))
        if not wanted:
            return
        dataset = self._writer.lake.dataset_of(self._version(table))
        fragments: list[Any] = [fragment for fragment, _ in self._ids.find(table, dataset, column, wanted)]
        if not fragments:
            return
        files = FileSystemDataset(fragments, dataset.schema, dataset.format, dataset.filesystem)
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
        the format's library raises. What was written by then is right, and stays.
        """
        load_id = self._newest_load = later_load_id(self._newest_load)
        for table in TABLES:
            new = rows.get(table.name)
            if new is not None and new.num_rows:
                self._write_table(table, new)
        note = {"load_id": load_id, "status": 0, "inserted_at": datetime.now(UTC)}
        self._writer.append(self._version(self.loads_table), pa.Table.from_pylist([note], schema=_LOADS))
        return load_id

    def drop(self) -> None:
        """Drop the dataset, with its tables."""
        self._writer.drop(self.pipeline)

    def maintain(self, every: timedelta) -> None:
        """Keep each table's files few, where it is time. Raises what the format's library raises."""
        writer = lake_writer(self._settings.warehouse)
        for name in writer.lake.names():
            table = writer.lake.open(name)
            try:
                counts = writer.maintain(table, every) if table else None
            except LoadedMeanwhile as error:
                log.info("lake.maintenance_postponed", table=name, why=str(error))
                continue
            if counts and any(counts.values()):
                log.info("lake.maintained", table=name, **counts)

    def _write_table(self, table: Table, rows: pa.Table) -> None:
        if table.replaces:
            self._replace(table, rows)
            return
        absent = self._absent(table, rows)
        if absent.num_rows:
            self._writer.append(self._version(table.name), absent)

    def _replace(self, table: Table, rows: pa.Table) -> None:
        """Write rows in parts, of which each replaces rows of a few files: those are read whole."""
        version = self._version(table.name)
        while rows.num_rows:
            ids = [str(value) for value in rows[table.id_column].to_pylist()]
            dataset = self._writer.lake.dataset_of(version)
            files = self._ids.find(table.name, dataset, table.id_column, ids)
            if not files:
                self._writer.append(version, rows)
                return
            is_last = len(files) <= _FILES_AT_ONCE
            part = is_last | np.logical_or.reduce([hits for _, hits in files[:_FILES_AT_ONCE]])
            paths = {fragment.path for fragment, hits in files if (hits & part).any()}
            self._writer.replace(version, rows.filter(pa.array(part)), table.key, paths)
            rows = rows.filter(pa.array(~part))

    def _find(self, table: str) -> Any:
        """Return the version of a table that the turn reads; None where there is no such table."""
        if table not in self._versions and (version := self._writer.lake.open(table)):
            self._versions[table] = version
        return self._versions.get(table)

    def _version(self, table: str) -> Any:
        version = self._find(table)
        if version is None:
            raise WarehouseUnavailable(f"table {table} is gone: it is made anew")
        return version


class _FileIds:
    """Which files of a table have which ids: 32 bits of each, sorted.

    A file never changes, so it is read once.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._duckdb = connection
        self._hashes: dict[str, dict[str, _Array]] = {}  # by table and file

    def find(
        self, table: str, dataset: FileSystemDataset, column: str, ids: Sequence[str]
    ) -> list[tuple[ParquetFileFragment, _Array]]:
        """Return the files in which some of these ids may be, each with which of them."""
        known = self._hashes.get(table, {})
        files = {fragment.path: fragment for fragment in dataset.get_fragments()}
        self._hashes[table] = known = {
            path: known[path] if path in known else np.sort(self._hashes_of(_column(fragment, column)))
            for path, fragment in files.items()
        }
        wanted = self._hashes_of(pa.array(ids, pa.string()))
        hits = {path: _is_in(wanted, known[path]) for path in files}
        return [(fragment, hits[path]) for path, fragment in files.items() if hits[path].any()]

    def _hashes_of(self, ids: Any) -> _Array:
        self._duckdb.register("ingest_hashed", pa.table({"id": ids}))
        sql = "SELECT (hash(id) >> 32)::UINTEGER AS hash FROM ingest_hashed"
        hashes = np.asarray(self._duckdb.execute(sql).fetchnumpy()["hash"])
        self._duckdb.unregister("ingest_hashed")
        return hashes


def _column(fragment: ParquetFileFragment, name: str) -> Any:
    return fragment.to_table(columns=[name])[name]


def _is_in(values: _Array, among: _Array) -> _Array:
    """Return which of these values are in a sorted array."""
    if not len(among):
        return np.zeros(len(values), dtype=bool)
    return np.asarray(among[np.searchsorted(among, values).clip(max=len(among) - 1)] == values)
