"""A lake: tables in a folder or a bucket, which DuckDB reads in memory, over Arrow.

Nothing is downloaded for it: a library of the table format finds the files, Arrow reads them at every store,
and DuckDB needs no extension.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dlt
import pyarrow as pa
from dlt.common.configuration.exceptions import ConfigFieldMissingException
from dlt.common.configuration.utils import get_resolved_traces
from pyarrow.dataset import FileSystemDataset

from ingest.errors import ConfigurationError, NothingLoaded
from ingest.settings import WarehouseSettings
from ingest.warehouse import Bounds, QueryResult, RunningQuery, readable_values
from ingest.warehouse.duckdb_file import run_bounded, run_statements, translated_errors
from ingest.warehouse.errors import translated

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

JSON_FIELD: dict[bytes | str, bytes | str] = {b"ingest.type": b"json"}
"""The metadata of a text column that holds JSON: no format has a type for it."""

_WORD = re.compile(r"\w+")


class Lake(ABC):
    """The tables of a dataset, in one format. Each call reads the newest state.

    `notes_prefix` begins the names of tables that are not for users. Raises ConfigurationError.
    """

    notes_prefix = "_ingest_"

    def __init__(self, settings: WarehouseSettings) -> None:
        self._settings = settings
        with translated():
            self.place = _configuration(settings)
            get_resolved_traces().clear()  # dlt's note of every setting it read: a full memory, in time
        self._url = f"{self.place.bucket_url.rstrip('/')}/{settings.dataset}"

    def url(self, table: str) -> str:
        """Return the URL of a table's folder."""
        return f"{self._url}/{table}"

    @abstractmethod
    def open(self, table: str) -> Any:
        """Return the newest state of a table, as the format's library has it; None where there is none."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of the dataset's tables."""

    @abstractmethod
    def schema_of(self, table: Any) -> pa.Schema:
        """Return the columns of a table that was opened; those with JSON are marked by JSON_FIELD."""

    @abstractmethod
    def dataset_of(self, table: Any) -> FileSystemDataset:
        """Return the files of a table that was opened, of which DuckDB reads the columns that it needs."""

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
        candidates = self._candidates()
        words = set(_WORD.findall(" ".join(statements).lower()))
        named = [name for name in candidates if name.lower() in words]
        tables = {name: table for name in named or candidates if (table := self.open(name))}
        if not tables and not self.names():
            raise NothingLoaded(f"nothing has been loaded yet: the dataset {dataset} has no tables")
        with readable_values(), duckdb.connect() as connection, translated_errors(self._url):
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(f'CREATE SCHEMA "{dataset}"')
            connection.execute(f'USE "{dataset}"')
            for name, table in tables.items():
                connection.register(f"{name} as files", self.dataset_of(table))
                columns = _json_columns(self.schema_of(table))
                json = ", ".join(f'TRY_CAST("{column}" AS JSON) AS "{column}"' for column in columns)
                replaced = f" REPLACE ({json})" if json else ""
                connection.execute(
                    f'CREATE VIEW "{dataset}"."{name}" AS SELECT *{replaced} FROM temp."{name} as files"'  # noqa: S608 - names of tables, quoted
                )
            yield connection

    def _candidates(self) -> list[str]:
        """Return names among which all tables are; `open` tells which of them are tables."""
        return self.names()


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


def _json_columns(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if JSON_FIELD.items() <= (field.metadata or {}).items()]
