"""A lake of Delta tables, of which deltalake reads the logs at every store.

https://delta-io.github.io/delta-rs/
"""

from functools import cached_property
from typing import Any, cast

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from dlt.common.libs.deltalake import deltalake_storage_options
from pyarrow.dataset import FileSystemDataset
from pyarrow.fs import FileSelector, FileType, PyFileSystem

from ingest.settings import WarehouseSettings
from ingest.warehouse.errors import translated
from ingest.warehouse.lake import Lake


class DeltaLake(Lake):
    """Delta tables, each in a folder of its own: the folders are the catalog.

    `options` are what deltalake needs to reach the store, secrets included.
    """

    def __init__(self, settings: WarehouseSettings) -> None:
        super().__init__(settings)
        self.options: dict[str, str] = deltalake_storage_options(
            self.place.credentials, self.place.deltalake_storage_options
        )

    def open(self, table: str) -> DeltaTable | None:
        """Return the newest state of a table; None where there is no such table."""
        with translated():
            try:
                return DeltaTable(self.url(table), storage_options=self.options)
            except TableNotFoundError:
                return None

    def names(self) -> list[str]:
        """Return the names of the dataset's tables."""
        with translated():
            return [
                name for name in self._candidates() if DeltaTable.is_deltatable(self.url(name), self.options)
            ]

    def schema_of(self, table: DeltaTable) -> pa.Schema:
        """Return the columns of a table, as Arrow has them."""
        return pa.schema(cast(Any, table.schema().to_arrow()))

    def dataset_of(self, table: DeltaTable) -> FileSystemDataset:
        """Return the files of a table.

        Texts are views: deltalake writes some files so, and Arrow cannot compare a view with a text. DuckDB
        knows that, and compares views itself.
        """
        fields = [
            field.with_type(pa.string_view()) if pa.types.is_string(field.type) else field
            for field in self.schema_of(table)
        ]
        return cast(FileSystemDataset, table.to_pyarrow_dataset(schema=pa.schema(fields)))

    def _candidates(self) -> list[str]:
        """Return the names of the dataset's folders; most are tables."""
        with translated():
            try:
                entries = self._files.get_file_info(FileSelector("", allow_not_found=True))
            except TableNotFoundError:  # a local folder that is missing
                return []
            folders = (entry.base_name for entry in entries if entry.type == FileType.Directory)
            return sorted(name for name in folders if '"' not in name)

    @cached_property
    def _files(self) -> Any:
        return PyFileSystem(DeltaStorageHandler(self._url, self.options))
