"""Functions that change a log's history or take a warehouse back to an older state.

They do what an operator's hand does, or a disk that did not have yet what it was told to write.
"""

import shutil
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import UnknownTopicOrPartitionError

from ingest.settings import Settings
from ingest.vendors import vendor_names
from ingest.warehouse.duckdb_file import warehouse_lock
from tests.faults.load import EventKey

_TURN_SECONDS = 20.0
_PATIENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.1


def copy_log(path: Path) -> Path:
    """Copy the whole log to a file beside it and return the copy's path.

    Raises sqlite3.Error where there is no room.
    """
    copy = path.with_name("kept.db")
    copy.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def checkpoint_log(path: Path) -> None:
    """Move what the -wal has into the main file, so that the -wal begins anew.

    It does so as far as nobody is in the way.
    """
    with closing(sqlite3.connect(path, timeout=_TURN_SECONDS)) as connection:
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()


def copy_warehouse(settings: Settings) -> Path:
    """Copy the whole warehouse while nobody else has it open, and return the copy's path.

    Raises OSError, WarehouseUnavailable.
    """
    file = duckdb_file(settings)
    copy = file.with_name("kept.duckdb")
    with warehouse_lock(settings.warehouse, _TURN_SECONDS):
        shutil.copy(file, copy)
    return copy


def restore_warehouse(settings: Settings, copy: Path) -> None:
    """Put the copy in the place of the warehouse's file.

    Raises OSError, WarehouseUnavailable.
    """
    file = duckdb_file(settings)
    with warehouse_lock(settings.warehouse, _TURN_SECONDS):
        copy.replace(file)
        file.with_name(f"{file.name}.wal").unlink(missing_ok=True)


def duckdb_file(settings: Settings) -> Path:
    """Return the warehouse's DuckDB file.

    Raises FileNotFoundError for another warehouse.
    """
    if settings.warehouse.duckdb_file is None:
        raise FileNotFoundError("the warehouse is no file")
    return settings.warehouse.duckdb_file


def delete_topic(servers: Sequence[str], topic: str) -> bool:
    """Delete the topic, wait until it is gone, and return whether it was there.

    The next program that appends to it makes it again. Raises KafkaError.
    """
    with closing(KafkaAdminClient(bootstrap_servers=list(servers))) as admin:
        before = admin.describe_topics([topic])[0].get("topic_id")
        try:
            admin.delete_topics([topic])
        except UnknownTopicOrPartitionError:
            return False
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while admin.describe_topics([topic])[0].get("topic_id") == before and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
    return True


def events_in_log(settings: Settings) -> frozenset[EventKey]:
    """Return the keys of all events in the log.

    Raises LogUnavailable.
    """
    with closing(
        settings.build_log().reader(None, [settings.topic(vendor) for vendor in vendor_names()])
    ) as reader:
        headers = [stored.record.headers for stored in reader.records()]
    return frozenset((fields["ce_source"], fields["ce_id"]) for fields in headers if "ce_id" in fields)
