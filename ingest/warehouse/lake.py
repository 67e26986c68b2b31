"""A lake: Delta tables in a folder or a bucket, which DuckDB reads in memory, over Arrow.

Nothing is downloaded for it: deltalake reads the files and the tables' logs at every store, and DuckDB needs
no extension. https://delta-io.github.io/delta-rs/
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import dlt
import pyarrow as pa
from dlt.common.configuration.exceptions import ConfigFieldMissingException
from pyarrow.dataset import FileSystemDataset

from ingest.errors import ConfigurationError, NothingLoaded
from ingest.settings import WarehouseSettings
from ingest.warehouse import Bounds, QueryResult, RunningQuery, readable_values
from ingest.warehouse.duckdb_file import run_bounded, run_statements, translated_errors
from ingest.warehouse.errors import translated

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from duckdb import DuckDBPyConnection

JSON_FIELD: dict[bytes | str, bytes | str] = {b"ingest.type": b"json"}
"""The metadata of a text column that holds JSON."""

_WORD = re.compile(r"\w+")


class Lake:
    """The Delta tables of a dataset. Each call reads the newest state. Raises ConfigurationError."""

    def __init__(self, settings: WarehouseSettings) -> None:
        self._settings = settings
        with translated():
            import deltalake
            from dlt.common.configuration.utils import get_resolved_traces
            from dlt.common.libs.deltalake import deltalake_storage_options

            config = _configuration(settings)
            self._options = deltalake_storage_options(config.credentials, config.deltalake_storage_options)
            get_resolved_traces().clear()  # dlt's note of every setting it read: a full memory, in time
        self._deltalake = deltalake
        self._url = f"{config.bucket_url.rstrip('/')}/{settings.dataset}"

    def url(self, table: str) -> str:
        """Return the URL of a table's folder."""
        return f"{self._url}/{table}"

    @property
    def options(self) -> dict[str, str]:
        """Return what deltalake needs to reach the store, secrets included."""
        return self._options

    def open(self, table: str) -> "DeltaTable | None":
        """Return the newest state of a table; None where there is no such table."""
        from deltalake.exceptions import TableNotFoundError

        with translated():
            try:
                return self._deltalake.DeltaTable(self.url(table), storage_options=self._options)
            except TableNotFoundError:
                return None

    def names(self) -> list[str]:
        """Return the names of the dataset's Delta tables."""
        return [name for name in self._folders() if self._is_table(name)]

    def query(self, statements: Sequence[str], parameters: Sequence[Any] = ()) -> list[QueryResult]:
        """Run statements, with JSON as JsonText. Raises as `ingest.warehouse.query.query` does."""
        with self._opened(statements) as connection:
            return run_statements(connection, statements, parameters)

    def query_bounded(self, sql: str, bounds: Bounds, running: RunningQuery) -> QueryResult:
        """Run a statement that somebody wrote. Raises as `ingest.warehouse.query.query_bounded` does."""
        with self._opened([sql]) as connection:
            return run_bounded(connection, sql, bounds, running)

    @contextmanager
    def _opened(self, statements: Iterable[str]) -> "Iterator[DuckDBPyConnection]":
        """Open a database in memory with the tables that statements name, or all where they name none."""
        import duckdb

        dataset = self._settings.dataset
        folders = self._folders()
        words = set(_WORD.findall(" ".join(statements).lower()))
        named = [name for name in folders if name.lower() in words]
        tables = {name: table for name in named or folders if (table := self.open(name))}
        if not tables and not self.names():
            raise NothingLoaded(f"nothing has been loaded yet: the dataset {dataset} has no tables")
        with readable_values(), duckdb.connect() as connection, translated_errors(self._url):
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(f'CREATE SCHEMA "{dataset}"')
            connection.execute(f'USE "{dataset}"')
            for name, table in tables.items():
                connection.register(f"{name} as files", dataset_of(table))
                json = ", ".join(f'TRY_CAST("{name}" AS JSON) AS "{name}"' for name in _json_columns(table))
                replaced = f" REPLACE ({json})" if json else ""
                connection.execute(
                    f'CREATE VIEW "{dataset}"."{name}" AS SELECT *{replaced} FROM temp."{name} as files"'  # noqa: S608 - names of folders, quoted
                )
            yield connection

    def _folders(self) -> list[str]:
        """Return the names of the dataset's folders; most are tables."""
        from deltalake.exceptions import TableNotFoundError
        from pyarrow.fs import FileSelector, FileType

        with translated():
            try:
                entries = self._files.get_file_info(FileSelector("", allow_not_found=True))
            except TableNotFoundError:  # a local folder that is missing
                return []
            folders = (entry.base_name for entry in entries if entry.type == FileType.Directory)
            return sorted(name for name in folders if '"' not in name)

    def _is_table(self, name: str) -> bool:
        with translated():
            return bool(self._deltalake.DeltaTable.is_deltatable(self.url(name), self._options))

    @cached_property
    def _files(self) -> Any:
        from deltalake.fs import DeltaStorageHandler
        from pyarrow.fs import PyFileSystem

        return PyFileSystem(DeltaStorageHandler(self._url, self._options))


def _configuration(settings: WarehouseSettings) -> Any:
    """Return what dlt knows about the lake's place: its keys are dlt's configuration.

    Raises ConfigurationError.
    """
    url = settings.credentials.get_secret_value() if settings.credentials else ""
    destination: Any = dlt.destination("filesystem", **({"bucket_url": url} if url else {}))
    unresolved = destination.spec(local_dir=".")._bind_dataset_name(dataset_name=settings.dataset)  # noqa: SLF001 - as dlt does
    try:
        return destination.configuration(unresolved)
    except ConfigFieldMissingException:
        remedy = (
            "dlt finds no keys: set DESTINATION__FILESYSTEM__CREDENTIALS__AWS_ACCESS_KEY_ID and the like,"
            " see docs/destinations.md"
            if url
            else "write the lake's folder or bucket: /srv/lake, s3://bucket/folder, gs://… or az://…"
        )
        raise ConfigurationError(f"warehouse.credentials: {remedy}") from None


def schema_of(table: "DeltaTable") -> pa.Schema:
    """Return the columns of a table, as Arrow has them."""
    return pa.schema(cast(Any, table.schema().to_arrow()))


def dataset_of(table: "DeltaTable") -> FileSystemDataset:
    """Return the files of a table as Arrow's dataset, of which DuckDB reads the columns that it needs.

    Texts are views: deltalake writes some files so, and Arrow cannot compare a view with a text. DuckDB knows
    that, and compares views itself.
    """
    fields = [
        field.with_type(pa.string_view()) if pa.types.is_string(field.type) else field
        for field in schema_of(table)
    ]
    return cast(FileSystemDataset, table.to_pyarrow_dataset(schema=pa.schema(fields)))


def _json_columns(table: "DeltaTable") -> list[str]:
    return [field.name for field in schema_of(table) if JSON_FIELD.items() <= (field.metadata or {}).items()]
