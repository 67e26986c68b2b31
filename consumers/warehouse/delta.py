"""Commits of Delta tables. Each is the version after the one that was read, or it is refused.

The store accepts one such version only. So nobody else can have changed the table in between, and what was
decided by the rows that were read is still right when it is written.
https://github.com/delta-io/delta/blob/master/PROTOCOL.md#delta-log-entries
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, write_deltalake
from deltalake.exceptions import CommitFailedError

from ingest.errors import ConfigurationError, LoadedMeanwhile
from ingest.warehouse.lake import JSON_FIELD, Lake, schema_of

# https://docs.delta.io/table-properties/
_PROPERTIES = {
    "delta.checkpointInterval": "20",  # a load begins by reading the log since the last checkpoint
    "delta.logRetentionDuration": "interval 7 days",
    "delta.deletedFileRetentionDuration": "interval 1 days",  # a file of bookings is replaced again and again
}
_MAINTAINED_AT = "ingest.maintainedAt"
_NEXT_VERSION = CommitProperties(max_commit_retries=0)  # a retry would be the version after the next one


def create(lake: Lake, table: str, schema: pa.Schema, statistics: Iterable[str]) -> DeltaTable:
    """Make a table.

    `statistics` are the columns of which its log has each file's least and greatest value. Raises
    LoadedMeanwhile where somebody else has just made it.
    """
    properties = {**_PROPERTIES, "delta.dataSkippingStatsColumns": ",".join(statistics)}
    with _refused_as_loaded(table):
        return DeltaTable.create(
            lake.url(table), schema, configuration=properties, storage_options=lake.options
        )


def check_refusal(lake: Lake, table: str) -> None:
    """Write two versions of one number, of which the store has to refuse the second.

    Raises ConfigurationError where it accepts both: then a load could be lost to another one.
    """
    for version in [version for version in (lake.open(table), lake.open(table)) if version]:
        try:
            with _refused_as_loaded(table):
                version.alter.set_table_properties(_PROPERTIES, commit_properties=_NEXT_VERSION)
        except LoadedMeanwhile:
            return
    raise ConfigurationError(
        f"warehouse.credentials: the store of {lake.url(table)} lets a writer overwrite what another one has"
        " just written; take one with conditional writes, as S3, Google Cloud Storage and Azure have"
    )


def add_missing_columns(table: DeltaTable, schema: pa.Schema) -> None:
    """Add the columns of a schema that a table lacks. Raises LoadedMeanwhile."""
    existing = schema_of(table).names
    if missing := [Field.from_arrow(field) for field in schema if field.name not in existing]:
        with _refused_as_loaded(_name(table)):
            table.alter.add_columns(missing)


def append(table: DeltaTable, rows: pa.Table) -> None:
    """Append rows. Raises LoadedMeanwhile."""
    with _refused_as_loaded(_name(table)):
        write_deltalake(table, rows, mode="append", commit_properties=_NEXT_VERSION)


def replace(table: DeltaTable, rows: pa.Table, condition: str, file_bytes: int | None = None) -> None:
    """Write rows in place of those that meet an SQL condition, which the new ones meet, too.

    Only files with such rows are written anew, as files of `file_bytes` or deltalake's own size. Raises
    LoadedMeanwhile.
    """
    with _refused_as_loaded(_name(table)):
        write_deltalake(
            table,
            rows,
            mode="overwrite",
            predicate=condition,
            target_file_size=file_bytes,
            commit_properties=_NEXT_VERSION,
        )


def maintain(table: DeltaTable, every: timedelta, file_bytes: int | None) -> dict[str, int] | None:
    """Make large files of small ones, and delete files that were replaced long enough ago.

    `file_bytes` is the size of a large one, deltalake's own where it is None. Return how many files went and
    came; None where it was done less than `every` ago. Raises LoadedMeanwhile.
    """
    properties = table.metadata().configuration
    if float(properties.get(_MAINTAINED_AT, 0)) > time.time() - every.total_seconds():
        return None
    with _refused_as_loaded(_name(table)):
        # It is right beside loads of others: files that a load has replaced meanwhile are refused.
        counts = table.optimize.compact(target_size=file_bytes, max_concurrent_tasks=1)
        deleted = table.vacuum(dry_run=False, full=True)  # also what loads left that were refused
        table.cleanup_metadata()
        table.alter.set_table_properties({_MAINTAINED_AT: f"{time.time():.0f}"}, raise_if_not_exists=False)
    return {"removed": counts["numFilesRemoved"], "added": counts["numFilesAdded"], "deleted": len(deleted)}


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


def with_json_marked(schema: pa.Schema, columns: Iterable[str]) -> pa.Schema:
    """Return a schema in which these columns are marked as JSON, since Delta has no type for it."""
    json = set(columns)
    return pa.schema([field.with_metadata(JSON_FIELD) if field.name in json else field for field in schema])


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
