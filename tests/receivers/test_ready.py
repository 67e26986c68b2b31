"""`/readyz` says what the receiver cannot do, and why."""

import errno
import os
from contextlib import closing
from pathlib import Path

import pytest

from ingest import disk
from ingest.log import Record
from ingest.log.backend import KafkaLog
from ingest.log.sqlite import SqliteProducer
from ingest.settings import Settings
from receivers.spool.folder import readiness
from tests.receivers.running import unused_port


def _settings(tmp_path: Path, log: str, spool_limit: int = 2**30) -> Settings:
    return Settings.model_validate(
        {"log": log, "receiver": {"spool_dir": str(tmp_path / "spool"), "spool_limit": spool_limit}}
    )


@pytest.fixture
def embedded(tmp_path: Path) -> Settings:
    folder = tmp_path / "data"
    folder.mkdir()
    SqliteProducer(folder / "log.db").close()
    return _settings(tmp_path, f"sqlite:///{folder / 'log.db'}")


@pytest.fixture
def kafka(tmp_path: Path) -> Settings:
    return _settings(tmp_path, f"kafka://127.0.0.1:{unused_port()}")


def _spool(settings: Settings, size: int = 10) -> None:
    folder = Path(settings.receiver.spool_dir)
    folder.mkdir()
    with closing(SqliteProducer(folder / "spool-000.db")) as spool:
        spool.append("bookings.calendly", [Record("key", bytes(size), {})]).result()


def _refuse_writes(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """As a disk does that is full or read-only, or a folder of somebody else's."""

    def refused(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(disk, "TemporaryFile", refused)


def _states(settings: Settings) -> dict[str, str]:
    """What is said of the log and of the spool."""
    return {finding.check: str(finding.state) for finding in readiness(settings)}


def _details(settings: Settings) -> str:
    return "; ".join(finding.detail for finding in readiness(settings))


def test_an_embedded_log_that_can_be_read_and_written_is_ready(embedded: Settings) -> None:
    assert _states(embedded) == {"log": "ok"}


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
    _refuse_writes(monkeypatch, number)
    assert _states(embedded) == {"log": "failed"}
    assert f"cannot be written to: {os.strerror(number)}" in _details(embedded)
    assert why in _details(embedded)


def test_kafka_away_and_a_spool_with_room_is_ready_with_a_warning(kafka: Settings) -> None:
    _spool(kafka)
    assert _states(kafka) == {"log": "warning", "spool": "ok", "undone": "warning"}


def test_kafka_away_and_no_spool_is_not_ready_for_both_reasons(kafka: Settings) -> None:
    assert _states(kafka) == {"log": "failed", "spool": "failed"}
    assert "there is no spool file" in _details(kafka)


def test_kafka_away_and_a_full_spool_is_not_ready_for_both_reasons(tmp_path: Path) -> None:
    full = _settings(tmp_path, f"kafka://127.0.0.1:{unused_port()}", spool_limit=1024 * 1024)
    _spool(full, 2 * 1024 * 1024)
    assert _states(full) == {"log": "failed", "spool": "failed", "undone": "warning"}
    assert "is full: receiver.spool_limit is 1048576 bytes" in _details(full)


def test_kafka_away_and_a_spool_that_cannot_be_written_to_is_not_ready(
    kafka: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    _spool(kafka)
    _refuse_writes(monkeypatch, errno.EROFS)
    assert _states(kafka) == {"log": "failed", "spool": "failed", "undone": "warning"}
    assert "cannot be written to: Read-only" in _details(kafka)


def test_kafka_there_and_no_spool_is_ready_with_a_warning(
    kafka: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KafkaLog, "probe_append", lambda _: None)
    assert _states(kafka) == {"log": "ok", "spool": "warning"}
    assert "deliveries will be answered 503 when Kafka is away: there is no spool file" in _details(kafka)
    _spool(kafka)
    assert _states(kafka) == {"log": "ok", "undone": "warning"}
