"""Whether the embedded log would take a record now; none is left in it, and no file is made."""

import sqlite3
from contextlib import closing
from pathlib import Path

from ingest.disk import explain_unwritable
from ingest.errors import LogUnavailable
from ingest.log.sqlite.file import unavailable

_BUSY_SECONDS = 2.0


def try_append(path: Path) -> None:
    """Commit a change to the file that leaves it as it was, as durably as an append; where there is none, try its folder. Raises LogUnavailable."""
    if trouble := explain_unwritable(
        path.resolve().parent
    ):  # the journal of a linked file is beside that file
        raise LogUnavailable(f"the log {path} takes no records: {trouble}")
    if not path.exists() or not path.stat().st_size:  # nobody has made its tables yet
        return
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with (
        unavailable(path),
        closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)) as connection,
    ):
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(
            f"PRAGMA user_version = {version}"
        )  # SQLite writes the page although it stays the same
        connection.execute("COMMIT")
