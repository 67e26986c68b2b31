"""Commits of Delta tables. Each is the version after the one that was read, or it is refused.

The store accepts one such version only. So nobody else can have changed the table in between, and what was
decided by the rows that were read is still right when it is written.
https://github.com/delta-io/delta/blob/master/PROTOCOL.md#delta-log-entries
"""

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, cast

import dlt
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, write_deltalake
from deltalake.exceptions import CommitFailedError
from dlt.common.libs.deltalake import ensure_delta_compatible_arrow_data
from dlt.destinations.impl.filesystem.filesystem import FilesystemClient

from consumers.warehouse.lake_writer import FILE_BYTES, LakeWriter
from ingest.errors import ConfigurationError, LoadedMeanwhile
from ingest.settings import WarehouseSettings
from ingest.warehouse.delta import DeltaLake

# https://docs.delta.io/table-properties/
_PROPERTIES = {
    "delta.checkpointInterval": "20",  # a load begins by reading the log since the last checkpoint
    "delta.logRetentionDuration": "interval 7 days",
    "delta.deletedFileRetentionDuration": "interval 1 days",  # a file of bookings is replaced again and again
}
_MAINTAINED_AT = "ingest.maintainedAt"
_NEXT_VERSION = CommitProperties(max_commit_retries=0)  # a retry would be the version after the next one


class DeltaWriter(LakeWriter):
    """Writes Delta tables."""

    lake: DeltaLake

    def __init__(self, settings: WarehouseSettings) -> None:
        """Raise ConfigurationError where the lake's place is not known."""
        self.lake = DeltaLake(settings)

    def create(self, name: str, schema: pa.Schema, statistics: Iterable[str]) -> DeltaTable:
        """Make a table and open it."""
        properties = {**_PROPERTIES, "delta.dataSkippingStatsColumns": ",".join(statistics)}
        with _refused_as_loaded(name):
            return DeltaTable.create(
                self.lake.url(name), schema, configuration=properties, storage_options=self.lake.options
            )

    def check_refusal(self, name: str) -> None:
        """Write two versions of one number to a new table, of which the second has to be refused."""
        for version in [version for version in (self.lake.open(name), self.lake.open(name)) if version]:
            try:
                with _refused_as_loaded(name):
                    version.alter.set_table_properties(_PROPERTIES, commit_properties=_NEXT_VERSION)
            except LoadedMeanwhile:
                return
        raise ConfigurationError(
            f"warehouse.credentials: the store of {self.lake.url(name)} lets a writer overwrite what another"
            " one has just written; take one with conditional writes, as S3, Google Cloud Storage and Azure"
            " have"
        )

    def add_missing_columns(self, table: DeltaTable, schema: pa.Schema) -> None:
        """Add the columns of a schema that a table lacks."""
        existing = self.lake.schema_of(table).names
        if missing := [Field.from_arrow(field) for field in schema if field.name not in existing]:
            with _refused_as_loaded(_name(table)):
                table.alter.add_columns(missing)

    def append(self, table: DeltaTable, rows: pa.Table) -> None:
        """Append rows."""
        with _refused_as_loaded(_name(table)):
            write_deltalake(table, rows, mode="append", commit_properties=_NEXT_VERSION)

    def replace(
        self,
        table: DeltaTable,
        rows: pa.Table,
        key: Sequence[str],
        files: Collection[str] | None = None,  # noqa: ARG002 - deltalake finds them
    ) -> None:
        """Write rows in place of those that have the same `key` as one of them."""
        with _refused_as_loaded(_name(table)):
            write_deltalake(
                table,
                rows,
                mode="overwrite",
                predicate=condition_of(key, rows),
                target_file_size=FILE_BYTES.get(_name(table)),
                commit_properties=_NEXT_VERSION,
            )

    def maintain(self, table: DeltaTable, every: timedelta) -> dict[str, int] | None:
        """Make large files of small ones, and delete files that were replaced long enough ago."""
        properties = table.metadata().configuration
        if float(properties.get(_MAINTAINED_AT, 0)) > time.time() - every.total_seconds():
            return None
        with _refused_as_loaded(_name(table)):
            # It is right beside loads of others: files that a load has replaced meanwhile are refused.
            counts = table.optimize.compact(target_size=FILE_BYTES.get(_name(table)), max_concurrent_tasks=1)
            deleted = table.vacuum(dry_run=False, full=True)  # also what loads left that were refused
            table.cleanup_metadata()
            table.alter.set_table_properties(
                {_MAINTAINED_AT: str(int(time.time()))}, raise_if_not_exists=False
            )
        return {
            "removed": counts["numFilesRemoved"],
            "added": counts["numFilesAdded"],
            "deleted": len(deleted),
        }

    def storable(self, rows: pa.Table) -> pa.Table:
        """Return rows in types that the format has."""
        return pa.table(ensure_delta_compatible_arrow_data(rows))

    def drop(self, pipeline: dlt.Pipeline) -> None:
        """Remove the dataset's folder, which dlt would not without its own file in it."""
        with pipeline.destination_client() as client:
            cast(FilesystemClient, client).drop_dataset()


def condition_of(key: Sequence[str], rows: pa.Table) -> str:
    """Return the SQL condition of rows that have the keys of these."""
    *others, last = key
    groups = []
    keys = sorted(set(zip(*(rows[column].to_pylist() for column in key), strict=True)))
    for prefix, group in groupby(keys, itemgetter(slice(len(others)))):
        equal = [f'"{column}" = {_literal(value)}' for column, value in zip(others, prefix, strict=True)]
        values = ", ".join(_literal(values[-1]) for values in group)
        groups.append(" AND ".join([*equal, f'"{last}" IN ({values})']))
    return " OR ".join(f"({group})" for group in groups)


@contextmanager
def _refused_as_loaded(table: str) -> Iterator[None]:
    try:
        yield
    except CommitFailedError as error:
        raise LoadedMeanwhile(f"table {table}: somebody else has changed it meanwhile ({error})") from None


def _name(table: DeltaTable) -> str:
    return table.table_uri.rstrip("/").rpartition("/")[2]


def _literal(value: Any) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)
