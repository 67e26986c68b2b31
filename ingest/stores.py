"""Where the files of an installation are on this machine."""

from pathlib import Path

from ingest.opening import sqlite_path
from ingest.settings import Settings


def store_folders(settings: Settings) -> dict[str, Path]:
    """The folder of each thing that grows, by the name of its setting. A log or warehouse that is a server has none."""
    folders = {
        "reconcile.state_dir": Path(settings.reconcile.state_dir),
        "warehouse.work_dir": Path(settings.warehouse.work_dir),
    }
    if path := sqlite_path(settings):
        folders["log"] = path.parent
    else:
        folders["receiver.spool_dir"] = Path(settings.receiver.spool_dir)
    if file := settings.warehouse.duckdb_file:
        folders["warehouse"] = file.parent
    return folders
