"""A probe whether the embedded log takes records, which leaves no record and makes no file."""

from contextlib import closing
from pathlib import Path

from ingest.errors import LogUnavailable
from ingest.files import explain_unwritable
from ingest.log.sqlite.file import LogFile, unavailable

_BUSY_SECONDS = 2.0


def try_append(path: Path) -> None:
    """Commit an empty transaction, as durably as an append; without a file, only test its folder.

    Raises LogUnavailable when that fails.
    """
    if why := explain_unwritable(path.resolve().parent):  # the journal of a linked file is beside that file
        raise LogUnavailable(f"the log {path} takes no records: {why}")
    if not path.exists() or not path.stat().st_size:  # nobody has made its tables yet
        return
    with unavailable(path), closing(LogFile(path, wait=_BUSY_SECONDS)) as file, file.transaction():
        pass  # a transaction raises the version of the file, which writes a page
