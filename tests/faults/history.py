"""What changes a log's history or takes a warehouse back: by an operator's hand, or by a disk that had not yet what it was told."""

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
from ingest.warehouse.lock import warehouse_lock
from tests.faults.load import EventKey

_TURN_SECONDS = 20.0
_PATIENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.1


def copy_log(path: Path) -> Path:
    """A whole copy beside it. Raises sqlite3.Error where there is no room."""
    kept = path.with_name("kept.db")
    kept.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(kept)) as target:
        source.backup(target)
    return kept


def checkpoint_log(path: Path) -> None:
    """Put what the -wal has into the main file, as far as nobody is in the way, so that the -wal begins anew."""
    with closing(sqlite3.connect(path, timeout=_TURN_SECONDS)) as connection:
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()


def copy_warehouse(settings: Settings) -> Path:
    """Whole, since nobody has it open meanwhile. Raises OSError, WarehouseUnavailable."""
    file = duckdb_file(settings)
    kept = file.with_name("kept.duckdb")
    with warehouse_lock(settings.warehouse, _TURN_SECONDS):
        shutil.copy(file, kept)
    return kept


def restore_warehouse(settings: Settings, kept: Path) -> None:
    """The copy takes the file's place. Raises OSError, WarehouseUnavailable."""
    file = duckdb_file(settings)
    with warehouse_lock(settings.warehouse, _TURN_SECONDS):
        kept.replace(file)
        file.with_name(f"{file.name}.wal").unlink(missing_ok=True)


def duckdb_file(settings: Settings) -> Path:
    """Raises FileNotFoundError for another warehouse."""
    if settings.warehouse.duckdb_file is None:
        raise FileNotFoundError("the warehouse is no file")
    return settings.warehouse.duckdb_file


def delete_topic(servers: Sequence[str], topic: str) -> bool:
    """Returns when it is gone, whether it was there; whoever appends next makes it again. Raises KafkaError."""
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
    """Raises LogUnavailable."""
    with closing(
        settings.build_log().reader(None, [settings.topic(vendor) for vendor in vendor_names()])
    ) as reader:
        headers = [stored.record.headers for stored in reader.records()]
    return frozenset((each["ce_source"], each["ce_id"]) for each in headers if "ce_id" in each)
