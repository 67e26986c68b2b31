"""When a receiver can keep deliveries, and what it says when it cannot."""

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ingest.finding import State
from ingest.log import Record
from ingest.log.sqlite import SqliteProducer
from ingest.settings import Settings
from receivers.spool.file import SpoolFile
from receivers.spool.folder import check_spool, readiness
from tests.kafka.broker import free_port
from tests.receivers.running import PATIENCE, TOPIC

MIB = 1024 * 1024


@pytest.fixture
def away(tmp_path: Path) -> Settings:
    """With a Kafka that nobody can reach."""
    return Settings.model_validate(
        {
            "log": f"kafka://127.0.0.1:{free_port()}",
            "receiver": {"spool_dir": f"{tmp_path}/spool", "spool_limit": MIB},
        }
    )


def fill(settings: Settings, size: int) -> None:
    folder = Path(settings.receiver.spool_dir)
    with closing(SpoolFile(folder / "spool-000.db", [TOPIC], 64 * MIB)) as spool:
        spool.append(TOPIC, [Record("booking-1", bytes(size))]).result(PATIENCE)


def test_with_kafka_away_it_is_ready_while_the_spool_has_room(away: Settings, tmp_path: Path) -> None:
    assert [finding.failed for finding in readiness(away)] == [True, True], (
        "a receiver that runs has made a file"
    )
    assert list(tmp_path.iterdir()) == [], "it only looked"
    fill(away, 1000)
    log, spool, undone = readiness(away)
    assert (log.state, spool.state, undone.state) == (State.WARNING, State.OK, State.WARNING)
    assert "Connection refused" in log.detail
    assert "kept in the spool meanwhile" in log.remedy


def test_a_spool_that_is_full_is_told_with_its_limit(away: Settings) -> None:
    fill(away, 2 * MIB)
    log, spool, _ = readiness(away)
    assert log.failed
    assert spool.failed
    assert f"is full: receiver.spool_limit is {MIB} bytes" in spool.detail
    [checked] = check_spool(away)
    assert checked.failed


def test_a_spool_that_cannot_be_written_to_is_told_with_its_setting(away: Settings, tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    _, spool = readiness(away)
    assert spool.failed
    assert f"receiver.spool_dir {tmp_path}/spool" in spool.detail


def test_an_embedded_log_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    settings = Settings.model_validate({"log": f"sqlite:///{tmp_path}/data/log.db"})
    [found] = readiness(settings)
    assert not found.failed
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "data").write_text("a file")
    [found] = readiness(settings)
    assert found.failed
    assert "takes no records" in found.detail


def test_a_log_that_is_held_by_another_writer_for_too_long_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.log.sqlite.probe._BUSY_SECONDS", 0.1)
    settings = Settings.model_validate({"log": f"sqlite:///{tmp_path}/log.db"})
    SqliteProducer(tmp_path / "log.db").close()
    assert not readiness(settings)[0].failed
    with closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        [found] = readiness(settings)
    assert found.failed
    assert "database is locked" in found.detail
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        assert connection.execute("SELECT name FROM sqlite_master WHERE name LIKE '%probe%'").fetchall() == []


def test_a_disk_that_is_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    [found] = readiness(Settings.model_validate({"log": f"sqlite:///{tmp_path}/log.db"}))
    assert found.failed
    assert "No space left on device" in found.detail
