"""Whether the embedded log would take a record now; none is left in it, and no file is made."""

from contextlib import closing
from pathlib import Path

from ingest.disk import explain_unwritable
from ingest.errors import LogUnavailable
from ingest.log.sqlite.file import LogFile, unavailable

_BUSY_SECONDS = 2.0


def try_append(path: Path) -> None:
    """Commit a change to the file that leaves it as it was, as durably as an append; where there is none, try its folder. Raises LogUnavailable."""
    if trouble := explain_unwritable(
        path.resolve().parent
    ):  # the journal of a linked file is beside that file
        raise LogUnavailable(f"the log {path} takes no records: {trouble}")
    if not path.exists() or not path.stat().st_size:  # nobody has made its tables yet
        return
    with unavailable(path), closing(LogFile(path, wait=_BUSY_SECONDS)) as file, file.transaction():
        pass  # it raises the file's version, which writes a page
