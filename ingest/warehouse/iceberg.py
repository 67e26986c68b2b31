"""A lake of Iceberg tables, which a catalog that all writers share knows by name.

https://py.iceberg.apache.org/
"""

from functools import cached_property, lru_cache
from typing import cast

import pyarrow as pa
from dlt.common.configuration.specs.mixins import WithPyicebergConfig
from pyarrow.dataset import FileSystemDataset, ParquetFileFormat
from pyarrow.fs import FileSystem
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from ingest.errors import ConfigurationError
from ingest.settings import WarehouseSettings
from ingest.warehouse.errors import translated
from ingest.warehouse.lake import JSON_FIELD, Lake

JSON_DOC = b"JSON"
"""The description of a text column that holds JSON."""

# pyiceberg reads further properties of a catalog with this name from PYICEBERG_CATALOG__INGEST__….
_CATALOG_NAME = "ingest"
_FILE_IO = {"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"}
_FORMAT = ParquetFileFormat()


class IcebergLake(Lake):
    """Iceberg tables, each in a folder of its own, and their catalog."""

    notes_prefix = "ingest_"  # some catalogs want names that begin with a letter

    def __init__(self, settings: WarehouseSettings) -> None:
        super().__init__(settings)
        self.namespace = settings.dataset

    @cached_property
    def catalog(self) -> Catalog:
        """Connect to the catalog. Raises WarehouseUnavailable, ConfigurationError."""
        uri = self._settings.catalog.get_secret_value() if self._settings.catalog else ""
        kind = {"type": "glue"} if uri == "glue" else {"uri": uri, "pool_pre_ping": "true"}
        with translated("warehouse.catalog: "):
            keys = self.place.credentials
            found = keys.to_pyiceberg_fileio_config() if isinstance(keys, WithPyicebergConfig) else {}
            options = {name: str(value) for name, value in found.items() if value is not None}
            return _catalog(tuple(sorted({**_FILE_IO, **options, **kind}.items())))

    def open(self, table: str) -> Table | None:
        """Return the newest state of a table; None where there is no such table."""
        with translated():
            try:
                return self.catalog.load_table((self.namespace, table))
            except (NoSuchTableError, NoSuchNamespaceError):
                return None

    def names(self) -> list[str]:
        """Return the names of the dataset's tables."""
        with translated():
            try:
                identifiers = self.catalog.list_tables(self.namespace)
            except NoSuchNamespaceError:
                return []
            return sorted(name for *_, name in identifiers if '"' not in name)

    def schema_of(self, table: Table) -> pa.Schema:
        """Return the columns of a table, as Arrow has them."""
        columns = table.schema().as_arrow()
        json = {field.name for field in columns if (field.metadata or {}).get(b"doc") == JSON_DOC}
        return pa.schema(
            [
                pa.field(field.name, field.type, metadata=JSON_FIELD if field.name in json else None)
                for field in columns
            ]
        )

    def dataset_of(self, table: Table) -> FileSystemDataset:
        """Return the files of a table."""
        files = file_system(table)
        fragments = [_FORMAT.make_fragment(path, filesystem=files) for path in data_files(table)]
        return FileSystemDataset(fragments, self.schema_of(table), _FORMAT, files)


def data_files(table: Table) -> dict[str, DataFile]:
    """Return the files with a table's rows, by their paths in its file system.

    Raises ConfigurationError where some of their rows are deleted by other files, as Spark can be told to do.
    """
    tasks = list(table.scan().plan_files())
    if any(task.delete_files for task in tasks):
        raise ConfigurationError(
            f"table {'.'.join(table.name())} has rows that another program deleted by delete files, which are"
            " not read here: let it rewrite the data files, and set write.delete.mode, write.update.mode and"
            " write.merge.mode of the table to copy-on-write"
        )
    return {path_of(task.file.file_path): task.file for task in tasks}


def file_system(table: Table) -> FileSystem:
    """Return the file system in which a table is."""
    scheme, host, _ = PyArrowFileIO.parse_location(table.location())
    return cast(PyArrowFileIO, table.io).fs_by_scheme(scheme, host)


def path_of(url: str) -> str:
    """Return the path that a file has in its file system."""
    _, _, path = PyArrowFileIO.parse_location(url)
    return path


@lru_cache(maxsize=4)
def _catalog(properties: tuple[tuple[str, str], ...]) -> Catalog:
    """Return a catalog, with connections that are used again, until properties such as tokens are new."""
    return load_catalog(_CATALOG_NAME, **dict(properties))
