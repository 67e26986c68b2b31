"""When a receiver can keep deliveries, and what `/readyz` says when it cannot."""

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ingest import files
from ingest.errors import LogUnavailable
from ingest.log import Record
from ingest.log.sqlite import SqliteProducer
from ingest.log_probes import AppendProbe
from ingest.readiness import Finding
from ingest.settings import Settings
from receivers.spool.file import SpoolFile
from receivers.spool.folder import check_spool, readiness
from tests.receivers.running import TOPIC
from tests.support.polling import PATIENCE
from tests.support.ports import free_port

MIB = 1024 * 1024


@pytest.fixture
def embedded(tmp_path: Path) -> Settings:
    """Return settings with a log that exists."""
    (tmp_path / "data").mkdir()
    SqliteProducer(tmp_path / "data" / "log.db").close()
    return Settings.model_validate({"log": f"sqlite:///{tmp_path}/data/log.db"})


@pytest.fixture
def away(tmp_path: Path) -> Settings:
    """Return settings with a Kafka that nobody can reach."""
    return Settings.model_validate(
        {
            "log": f"kafka://127.0.0.1:{free_port()}",
            "receiver": {"spool_dir": f"{tmp_path}/spool", "spool_limit": MIB},
        }
    )


def look(settings: Settings) -> list[Finding]:
    return readiness(settings, AppendProbe(settings))


def states(settings: Settings) -> dict[str, str]:
    return {finding.check: str(finding.state) for finding in look(settings)}


def details(settings: Settings) -> str:
    return "; ".join(finding.detail for finding in look(settings))


def fill_spool(settings: Settings, size: int = 1000) -> None:
    folder = Path(settings.receiver.spool_dir)
    with closing(SpoolFile(folder / "spool-000.db", [TOPIC], 64 * MIB)) as spool:
        spool.append(TOPIC, [Record("booking-1", bytes(size))]).result(PATIENCE)


def refuse_writes(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Make writes fail, as on a full or read-only files."""

    def refused(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "TemporaryFile", refused)


def test_an_embedded_log_that_can_be_read_and_written_is_ready(embedded: Settings) -> None:
    assert states(embedded) == {"log": "ok"}


def test_an_embedded_log_that_nobody_made_yet_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    settings = Settings.model_validate({"log": f"sqlite:///{tmp_path}/data/log.db"})
    assert states(settings) == {"log": "ok"}
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "data").write_text("a file")
    assert states(settings) == {"log": "failed"}
    assert "takes no records" in details(settings)


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.ENOSPC, "No space left on device"),
        (errno.EROFS, "Read-only file system"),
        (errno.EACCES, "denied"),
    ],
)
def test_an_embedded_log_whose_disk_takes_no_write_is_not(
    embedded: Settings, monkeypatch: pytest.MonkeyPatch, number: int, why: str
) -> None:
    refuse_writes(monkeypatch, number)
    assert states(embedded) == {"log": "failed"}
    assert f"cannot be written to: {os.strerror(number)}" in details(embedded)
    assert why in details(embedded)


def test_a_disk_that_is_full_only_when_it_is_synced_is_told(
    embedded: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert states(embedded) == {"log": "failed"}
    assert "No space left on device" in details(embedded)


def test_an_embedded_log_that_another_writer_holds_for_too_long_is_not(
    embedded: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.log.sqlite.reader._BUSY_SECONDS", 0.1)
    path = embedded.log.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        [findings] = look(embedded)
    assert findings.failed
    assert "database is locked" in findings.detail
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master WHERE name LIKE '%probe%'").fetchall() == []


def test_kafka_away_and_a_spool_with_room_is_ready_with_a_warning(away: Settings) -> None:
    fill_spool(away)
    assert states(away) == {"log": "warning", "spool": "ok", "undone": "warning"}
    log = look(away)[0]
    assert "Connection refused" in log.detail
    assert "kept in the spool meanwhile" in log.remedy


def test_kafka_away_and_no_spool_is_not_ready_for_both_reasons(away: Settings, tmp_path: Path) -> None:
    assert states(away) == {"log": "failed", "spool": "failed"}
    assert "there is no spool file" in details(away), "a receiver that runs has made one"
    assert list(tmp_path.iterdir()) == [], "it only looked"


def test_kafka_away_and_a_full_spool_is_not_ready_for_both_reasons(away: Settings) -> None:
    fill_spool(away, 2 * MIB)
    assert states(away) == {"log": "failed", "spool": "failed", "undone": "warning"}
    assert f"is full: receiver.spool_limit is {MIB} bytes" in details(away)
    [checked] = check_spool(away)
    assert checked.failed


def test_kafka_away_and_a_spool_whose_disk_takes_no_write_is_not_ready(
    away: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_spool(away)
    refuse_writes(monkeypatch, errno.EROFS)
    assert states(away) == {"log": "failed", "spool": "failed", "undone": "warning"}
    assert "cannot be written to: Read-only" in details(away)


def test_a_spool_that_is_no_folder_is_told_with_its_setting(away: Settings, tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    _, spool = look(away)
    assert spool.failed
    assert f"receiver.spool_dir {tmp_path}/spool" in spool.detail


def test_kafka_there_and_no_spool_is_ready_with_a_warning(away: Settings) -> None:
    def takes_records() -> None:
        pass

    def states_with_log() -> dict[str, str]:
        return {finding.check: str(finding.state) for finding in readiness(away, takes_records)}

    assert states_with_log() == {"log": "ok", "spool": "warning"}
    assert any(
        "deliveries will be answered 503 when Kafka is away: there is no spool file" in finding.detail
        for finding in readiness(away, takes_records)
    )
    fill_spool(away)
    assert states_with_log() == {"log": "ok", "undone": "warning"}


def test_a_log_that_takes_no_record_is_told_with_its_reason(away: Settings) -> None:
    def takes_none() -> None:
        raise LogUnavailable("too few replicas")

    fill_spool(away)
    log, spool, _ = readiness(away, takes_none)
    assert (str(log.state), log.detail, str(spool.state)) == ("warning", "too few replicas", "ok")
