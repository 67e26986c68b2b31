"""What a format of tables in a lake has to do for a consumer."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import Any

import dlt
import pyarrow as pa

from ingest.warehouse.lake import JSON_FIELD, Lake

# A change of one booking writes its file anew, so these files are smaller than what readers like best.
FILE_BYTES = {"bookings": 4 * 1024 * 1024}
"""The size of a large file, by table; the format's own for others."""


class LakeWriter(ABC):
    """Writes tables that were opened by `lake`, each as the version after the one that was opened.

    Where somebody else has written that version meanwhile, LoadedMeanwhile is raised and nothing is written:
    so what was decided by the rows that were read is still right. A table stays open at the version that was
    written by it.
    """

    lake: Lake

    @abstractmethod
    def create(self, name: str, schema: pa.Schema, statistics: Iterable[str]) -> Any:
        """Make a table and open it.

        `statistics` are the columns of which it has each file's least and greatest value. Raises
        LoadedMeanwhile where somebody else has just made it.
        """

    @abstractmethod
    def check_refusal(self, name: str) -> None:
        """Write two versions of one number to a new table, of which the second has to be refused.

        Raises ConfigurationError where both are accepted: then a load could be lost to another one.
        """

    @abstractmethod
    def add_missing_columns(self, table: Any, schema: pa.Schema) -> None:
        """Add the columns of a schema that a table lacks."""

    @abstractmethod
    def append(self, table: Any, rows: pa.Table) -> None:
        """Append rows."""

    @abstractmethod
    def replace(
        self, table: Any, rows: pa.Table, key: Sequence[str], files: Collection[str] | None = None
    ) -> None:
        """Write rows in place of those that have the same `key` as one of them.

        Only files with such rows are written anew. `files` are the paths of those in which they can be, where
        that is known.
        """

    @abstractmethod
    def maintain(self, table: Any, every: timedelta) -> dict[str, int] | None:
        """Make large files of small ones, and delete files that were replaced long enough ago.

        Return how many files went and came; None where it was done less than `every` ago.
        """

    @abstractmethod
    def storable(self, rows: pa.Table) -> pa.Table:
        """Return rows in types that the format has."""

    @abstractmethod
    def drop(self, pipeline: dlt.Pipeline) -> None:
        """Drop the dataset, with its tables. The pipeline is one that loads into it."""


def with_json_marked(schema: pa.Schema, columns: Iterable[str]) -> pa.Schema:
    """Return a schema in which these columns are marked as JSON."""
    json = set(columns)
    return pa.schema([field.with_metadata(JSON_FIELD) if field.name in json else field for field in schema])


def fitted(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows with all columns of a table's schema, in its types."""
    columns = [
        rows[field.name].cast(field.type)
        if field.name in rows.column_names
        else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
