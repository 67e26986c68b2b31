"""Lakes of Delta tables, which deltalake itself reads."""

from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable

from ingest.simulator.account import Row
from tests.destinations.destination import Destination


def local_lake(folder: Path) -> Destination:
    """Return a lake in a folder."""

    def read(table: str) -> list[Row]:
        return rows_of(DeltaTable(f"{folder}/lake/ingest/{table}"))

    return Destination({"destination": "filesystem", "credentials": f"{folder}/lake"}, read)


def rows_of(table: DeltaTable) -> list[Row]:
    """Return all rows of a table."""
    return list(pa.table(table.scan().read_all()).to_pylist())
