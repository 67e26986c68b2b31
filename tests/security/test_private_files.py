"""All files that are written may be read by their owner only, whatever the umask."""

import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ingest.errors import LogRefused
from ingest.log import Partition, Record, StoredRecord
from ingest.settings.secrets_file import SecretsFile
from receivers.spool.file import SpoolFile
from tests.receivers.requests import booking
from tests.receivers.running import Receiver, unused_port
from tests.support.processes import COMMAND, ingest


@contextmanager
def anybody() -> Iterator[None]:
    """Set a umask with which everybody may read and write what this process makes."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def _open_to_others(folder: Path) -> list[str]:
    """Return everything in a folder, at any depth, that others may use; it must have something."""
    result = [path for path in folder.rglob("*") if not path.is_symlink()]
    assert result
    return [
        f"{stat.filemode(path.stat().st_mode)} {path.relative_to(folder)}"
        for path in result
        if path.stat().st_mode & 0o077
    ]


def test_all_that_a_whole_installation_writes_is_private(tmp_path: Path) -> None:
    """Settings, secrets, log, dlt's folder, warehouse, locks, the state of reconciliation."""
    completed = ingest(
        tmp_path, "demo", "--seconds", "1", "--rate", "10", "--outage", "3", "--folder", "here", "--json"
    )
    assert completed.code in {0, 1}, completed
    names = {path.name for path in tmp_path.rglob("*")}
    assert {"ingest.toml", "ingest.secrets.toml", "log.db", "warehouse.duckdb", "dlt"} <= names
    assert _open_to_others(tmp_path) == []


def test_what_init_and_a_first_look_write_is_private(tmp_path: Path) -> None:
    assert ingest(tmp_path, "init", "--public-url", "http://127.0.0.1:8080").code == 0
    ingest(tmp_path, "check")
    assert _open_to_others(tmp_path) == []


def test_what_a_receiver_spools_while_kafka_is_away_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    away = {
        "INGEST_LOG": f"kafka://127.0.0.1:{unused_port()}",
        "INGEST_RECEIVER__SPOOL_DIR": str(folder),
        "INGEST_RECEIVER__SPOOL_AFTER": "100ms",
    }
    with anybody(), closing(Receiver(tmp_path, [*COMMAND, "receive"], **away)) as receiver:
        assert receiver.send(booking(1)).status_code == 202
        assert any(path.name.startswith("spool-") for path in folder.iterdir())
        assert _open_to_others(folder) == []
        assert folder.stat().st_mode & 0o077 == 0


def test_what_the_log_refused_for_good_is_private(tmp_path: Path) -> None:
    with (
        anybody(),
        closing(SpoolFile(tmp_path / "spool" / "spool-000.db", ["bookings.calendly"], 1024 * 1024)) as spool,
    ):
        spool._set_aside(
            StoredRecord(Record("key", b"{}"), Partition("bookings.calendly"), 0), LogRefused("too large")
        )
    assert list((tmp_path / "spool" / "refused").glob("*.json"))
    assert _open_to_others(tmp_path) == []


@pytest.mark.parametrize("beside", [(), ("older",)])
def test_a_secrets_file_that_we_change_is_private(tmp_path: Path, beside: tuple[str, ...]) -> None:
    with anybody():
        SecretsFile(tmp_path / "ingest.secrets.toml").add("sales", "newest", beside)
    assert _open_to_others(tmp_path) == []
