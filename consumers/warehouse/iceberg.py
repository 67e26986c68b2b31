"""Commits of Iceberg tables. Each follows the snapshot that was read, or the catalog refuses it.

pyiceberg would repeat a refused commit upon the newest snapshot by itself, and an append of rows that
somebody else has just appended would succeed. So a commit is tried once, and the load is planned anew.
https://iceberg.apache.org/spec/#optimistic-concurrency
"""

import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.libs.pyiceberg import drop_iceberg_table, ensure_iceberg_compatible_arrow_data
from pyarrow.dataset import FileSystemDataset
from pyarrow.fs import FileSelector, LocalFileSystem
from pyiceberg.exceptions import CommitFailedException, NoSuchNamespaceError, TableAlreadyExistsError
from pyiceberg.io.pyarrow import _dataframe_to_data_files
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, Transaction

from consumers.warehouse.lake_writer import FILE_BYTES, LakeWriter, fitted
from ingest.errors import ConfigurationError, LoadedMeanwhile
from ingest.settings import WarehouseSettings
from ingest.warehouse.iceberg import JSON_DOC, IcebergLake, data_files, file_system, path_of
from ingest.warehouse.lake import JSON_FIELD

_MIB = 1024 * 1024
_LARGE_BYTES = 16 * _MIB  # compaction has the rows of so many bytes in memory, unpacked
_PACKING = 8  # how many times larger rows are in memory, where pyiceberg counts their bytes
_KEPT_FOR = timedelta(days=1)
_MAINTAINED_AT = "ingest.maintained-at"
_TRIED_ONCE = {"commit.retry.num-retries": "0"}
# https://iceberg.apache.org/docs/latest/configuration/
_PROPERTIES = {
    **_TRIED_ONCE,
    _MAINTAINED_AT: "0",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "20",  # a load begins by reading the manifests
    "write.metadata.delete-after-commit.enabled": "true",
    "write.delete.mode": "copy-on-write",  # for others who write: delete files are not read here
    "write.update.mode": "copy-on-write",
    "write.merge.mode": "copy-on-write",
}


class IcebergWriter(LakeWriter):
    """Writes Iceberg tables."""

    lake: IcebergLake

    def __init__(self, settings: WarehouseSettings) -> None:
        """Raise ConfigurationError where the lake's place or its catalog is not known."""
        self.lake = IcebergLake(settings)

    def create(self, name: str, schema: pa.Schema, statistics: Iterable[str]) -> Table:
        """Make a table and open it."""
        measured = {f"write.metadata.metrics.column.{column}": "full" for column in statistics}
        properties = {
            **_PROPERTIES,
            "write.target-file-size-bytes": str(_large_bytes(name) * _PACKING),
            "write.metadata.metrics.default": "none",
            **measured,
        }
        self.lake.catalog.create_namespace_if_not_exists(self.lake.namespace)
        with _refused_as_loaded(name):
            return self.lake.catalog.create_table(
                (self.lake.namespace, name),
                _described(schema),
                location=self.lake.url(name),
                properties=properties,
            )

    def check_refusal(self, name: str) -> None:
        """Append no rows to one snapshot of a new table twice, of which the second has to be refused."""
        for table in [table for table in (self.lake.open(name), self.lake.open(name)) if table]:
            try:
                self.append(table, self.lake.schema_of(table).empty_table())
            except LoadedMeanwhile:
                return
        raise ConfigurationError(
            "warehouse.catalog: this catalog lets a writer overwrite what another one has just written; take"
            " another one"
        )

    def add_missing_columns(self, table: Table, schema: pa.Schema) -> None:
        """Add the columns of a schema that a table lacks."""
        existing = self.lake.schema_of(table).names
        if missing := [field for field in schema if field.name not in existing]:
            with _transaction(table) as transaction, transaction.update_schema() as update:
                update.union_by_name(_described(missing))

    def append(self, table: Table, rows: pa.Table) -> None:
        """Append rows."""
        with _transaction(table) as transaction:
            transaction.append(fitted(rows, self.lake.schema_of(table)))

    def replace(
        self, table: Table, rows: pa.Table, key: Sequence[str], files: Collection[str] | None = None
    ) -> None:
        """Write rows in place of those that have the same `key` as one of them."""
        keys = set(_keys(rows, key))
        replaced: list[DataFile] = []
        parts = [fitted(rows, self.lake.schema_of(table))]
        for path, file in data_files(table).items():
            if files is None or path in files:
                stored = self._read(table, [path])
                stays = [values not in keys for values in _keys(stored, key)]
                if not all(stays):
                    replaced.append(file)
                    parts.append(stored.filter(pa.array(stays)))
        _rewrite(table, replaced, pa.concat_tables(parts))

    def maintain(self, table: Table, every: timedelta) -> dict[str, int] | None:
        """Make large files of small ones, and delete files that were replaced long enough ago."""
        maintained_at = table.properties.get(_MAINTAINED_AT)
        if maintained_at is None or float(maintained_at) > time.time() - every.total_seconds():
            return None  # a table without the property is somebody else's
        counts = {"removed": 0, "added": 0}
        for small in _groups(data_files(table), _large_bytes(table.name()[-1])):
            added = _rewrite(table, small.values(), self._read(table, list(small)))
            counts = {"removed": counts["removed"] + len(small), "added": counts["added"] + added}
        oldest = datetime.now(UTC) - _KEPT_FOR
        if any(snapshot.timestamp_ms < oldest.timestamp() * 1000 for snapshot in table.snapshots()[:-1]):
            with _refused_as_loaded(table.name()[-1]):
                table.maintenance.expire_snapshots().older_than(oldest).commit()
        deleted = self._delete_unused(table, oldest)
        with _transaction(table) as transaction:
            transaction.set_properties({_MAINTAINED_AT: str(int(time.time()))})
        return {**counts, "deleted": deleted}

    def storable(self, rows: pa.Table) -> pa.Table:
        """Return rows in types that the format has."""
        return ensure_iceberg_compatible_arrow_data(rows)

    def drop(self, pipeline: dlt.Pipeline) -> None:  # noqa: ARG002 - the catalog knows where the tables are
        """Drop the tables, with their files where the catalog agrees, and the namespace."""
        for name in self.lake.names():
            table = self.lake.open(name)
            drop_iceberg_table(self.lake.catalog, f"{self.lake.namespace}.{name}")
            if table and isinstance(file_system(table), LocalFileSystem):
                folder = Path(path_of(table.location()))
                shutil.rmtree(folder, ignore_errors=True)  # folders without files
                with suppress(OSError):  # the last one leaves the dataset's folder empty
                    folder.parent.rmdir()
        with suppress(NoSuchNamespaceError):
            self.lake.catalog.drop_namespace(self.lake.namespace)

    def _read(self, table: Table, paths: Collection[str]) -> pa.Table:
        """Return the rows of some of a table's files."""
        dataset = self.lake.dataset_of(table)
        fragments: list[Any] = [fragment for fragment in dataset.get_fragments() if fragment.path in paths]
        files = FileSystemDataset(fragments, dataset.schema, dataset.format, dataset.filesystem)
        return files.to_table()

    def _delete_unused(self, table: Table, before: datetime) -> int:
        """Delete files that no snapshot has and that are older, and return their number.

        They belonged to snapshots that were removed, or were left by loads that were refused. pyiceberg
        leaves both. Descriptions of the table (`….metadata.json`) are the catalog's business.
        """
        files = file_system(table)
        entries = files.get_file_info(FileSelector(path_of(table.location()), recursive=True))
        old = [
            entry.path
            for entry in entries
            if entry.extension in {"parquet", "avro"} and entry.mtime and entry.mtime < before
        ]
        if not old:
            return 0
        newest = self.lake.open(table.name()[-1])
        used = _used_files(newest) if newest else set(old)
        unused = [path for path in old if path not in used]
        for path in unused:
            files.delete_file(path)
        return len(unused)


def _described(fields: "Iterable[pa.Field[Any]]") -> pa.Schema:
    """Return a schema in which the columns with JSON are described as such."""
    return pa.schema(
        [
            pa.field(
                field.name, field.type, metadata={b"doc": JSON_DOC} if field.metadata == JSON_FIELD else {}
            )
            for field in fields
        ]
    )


def _used_files(table: Table) -> set[str]:
    """Return the paths of all files that a table's snapshots have."""
    manifests = {}
    used = set()
    for snapshot in table.snapshots():
        used.add(path_of(snapshot.manifest_list))
        manifests.update({manifest.manifest_path: manifest for manifest in snapshot.manifests(table.io)})
    for path, manifest in manifests.items():
        entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
        used |= {path_of(path), *(path_of(entry.data_file.file_path) for entry in entries)}
    return used


def _groups(files: Mapping[str, DataFile], size: int) -> Iterator[dict[str, DataFile]]:
    """Yield small files in groups, each of which makes one file of about this size."""
    group: dict[str, DataFile] = {}
    for path, file in sorted(files.items(), key=lambda item: item[1].file_size_in_bytes):
        if file.file_size_in_bytes > size // 2:
            break
        if sum(member.file_size_in_bytes for member in group.values()) > size:
            yield group
            group = {}
        group[path] = file
    if len(group) > 1:
        yield group


def _rewrite(table: Table, replaced: Iterable[DataFile], rows: pa.Table) -> int:
    """Write rows in place of whole files, and return the number of files with the rows."""
    with _transaction(table) as transaction, transaction.update_snapshot().overwrite() as snapshot:
        for file in replaced:
            snapshot.delete_data_file(file)
        written = list(_dataframe_to_data_files(table.metadata, rows, table.io, snapshot.commit_uuid))
        for file in written:
            snapshot.append_data_file(file)
    return len(written)


@contextmanager
def _transaction(table: Table) -> Iterator[Transaction]:
    """Open a transaction, which is committed at the end, and tried once. Raises LoadedMeanwhile."""
    table.metadata.properties.update(_TRIED_ONCE)  # here, whatever the table's properties say
    with _refused_as_loaded(table.name()[-1]), table.transaction() as transaction:
        yield transaction


@contextmanager
def _refused_as_loaded(table: str) -> Iterator[None]:
    try:
        yield
    except (CommitFailedException, TableAlreadyExistsError) as error:
        raise LoadedMeanwhile(f"table {table}: somebody else has changed it meanwhile ({error})") from None


def _large_bytes(table: str) -> int:
    return FILE_BYTES.get(table, _LARGE_BYTES)


def _keys(rows: pa.Table, key: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield the key of each row."""
    return zip(*(rows[column].to_pylist() for column in key), strict=True)
