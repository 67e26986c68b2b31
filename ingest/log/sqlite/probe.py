"""Whether the embedded log would take a record now; none is left in it, and no file is made."""

import sqlite3
from contextlib import closing
from pathlib import Path

from ingest.disk import write_trouble
from ingest.errors import LogUnavailable
from ingest.log.sqlite.file import unavailable

_BUSY_SECONDS = 2.0


def try_append(path: Path) -> None:
    """Writes to the file and takes it back; where there is none, tries its folder. Raises LogUnavailable."""
    if trouble := write_trouble(path.parent):
        raise LogUnavailable(f"the log {path} takes no records: {trouble}")
    if not path.exists():
        return
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with unavailable(path), closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE ingest_probe (value)")
        connection.execute("ROLLBACK")
