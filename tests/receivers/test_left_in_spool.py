"""Spools left from when the log was Kafka: they are shown, and in the log before anything newer."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from ingest.errors import LogUnavailable
from ingest.log import Record
from ingest.log.sqlite import SqliteProducer
from ingest.log_probes import AppendProbe
from ingest.settings import ReceiverSettings, Settings
from receivers.server import _readiness
from receivers.spool.file import SpoolFile
from receivers.spool.folder import claim_files, drain_leftovers, readiness, spool_states
from tests.receivers.conftest import Start
from tests.receivers.in_process import stored
from tests.receivers.requests import booking, subject
from tests.receivers.running import TOPIC, receiver_environment, subjects
from tests.support.polling import PATIENCE
from tests.support.processes import ingest

MIB = 1024 * 1024


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        log=f"sqlite:///{tmp_path / 'log.db'}", receiver=ReceiverSettings(spool_dir=str(tmp_path / "spool"))
    )


@pytest.fixture
def leftovers(tmp_path: Path) -> Iterator[list[SpoolFile]]:
    """Return two workers' files, still open: 250 records in the first and one in the second."""
    spools = [claim_files(tmp_path / "spool", [TOPIC], 64 * MIB)[0] for _ in range(2)]
    spools[0].append(TOPIC, [record(number) for number in range(250)]).result(PATIENCE)
    spools[1].append(TOPIC, [record(250)]).result(PATIENCE)
    yield spools
    close(spools)


def close(spools: list[SpoolFile]) -> None:
    while spools:
        spools.pop().close()


def record(number: int) -> Record:
    return Record("calendly/sales/1", b"{}", {"ce_id": str(number), "ce_subject": f"left-{number}"})


def waiting(settings: Settings) -> int:
    return sum(state.records for state in spool_states(settings))


def in_log(folder: Path) -> list[str]:
    return subjects(stored(folder / "log.db", TOPIC))


def gauge() -> float | None:
    return REGISTRY.get_sample_value("ingest_spool_records")


def test_they_are_in_the_log_in_order_before_the_first_delivery(
    leftovers: list[SpoolFile], start: Start, tmp_path: Path
) -> None:
    close(leftovers)
    receiver = start(INGEST_RECEIVER__SPOOL_DIR=str(tmp_path / "spool"), INGEST_RECEIVER__WORKERS="2")
    assert receiver.send(booking(1)).status_code == 202
    assert in_log(tmp_path) == [*(f"left-{number}" for number in range(251)), subject(1)]
    assert receiver.admin.get("/readyz").status_code == 200
    again = [SpoolFile(path, [TOPIC], 64 * MIB) for path in sorted((tmp_path / "spool").glob("spool-*.db"))]
    assert [spool.record_count() for spool in again] == [0, 0], (
        "nothing new is put there, and nobody has the files"
    )
    close(again)


def test_check_and_status_show_them(leftovers: list[SpoolFile], settings: Settings, tmp_path: Path) -> None:
    close(leftovers)
    environ = _environ(tmp_path, settings.receiver.spool_dir)
    files = ingest(tmp_path, "status", "--json", **environ).json["spool"]["files"]
    assert [(Path(file["file"]).name, file["records"]) for file in files] == [
        ("spool-000.db", 250),
        ("spool-001.db", 1),
    ]
    checks = ingest(tmp_path, "check", "--json", **environ).json["checks"]
    [details] = [check["detail"] for check in checks if check["check"] == "spool"]
    assert f"251 records wait in {settings.receiver.spool_dir} from when the log was Kafka" in details
    drain_leftovers(settings)
    checks = ingest(tmp_path, "check", "--json", **environ).json["checks"]
    assert [check["detail"] for check in checks if check["check"] == "spool"] == [
        "not used: only needed with Kafka"
    ]


def test_nothing_newer_is_taken_while_another_receiver_has_them(
    leftovers: list[SpoolFile], settings: Settings, tmp_path: Path
) -> None:
    leftovers.pop().close()
    folder = settings.receiver.spool_dir
    refused = ingest(tmp_path, "receive", **_environ(tmp_path, folder))
    assert refused.code == 3
    assert f"records that were accepted while the log was Kafka wait in {folder}" in refused.err
    assert "spool-000.db" in refused.err
    assert waiting(settings) == 251
    assert in_log(tmp_path) == []


def _environ(tmp_path: Path, folder: str) -> dict[str, str]:
    variables = {
        name: value
        for name, value in receiver_environment(tmp_path, {}).items()
        if name.startswith("INGEST_")
    }
    return variables | {"INGEST_RECEIVER__SPOOL_DIR": folder}


def test_a_log_that_takes_none_loses_none_and_is_told_with_the_number(
    leftovers: list[SpoolFile], settings: Settings, tmp_path: Path
) -> None:
    close(leftovers)
    SqliteProducer(tmp_path / "log.db").close()
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON records BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    with pytest.raises(LogUnavailable, match="no room"):
        drain_leftovers(settings)
    assert (waiting(settings), gauge()) == (251, 251)
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        connection.execute("DROP TRIGGER full")
    drain_leftovers(settings)
    assert (waiting(settings), gauge()) == (0, 0)
    assert in_log(tmp_path) == [f"left-{number}" for number in range(251)]


def test_a_file_that_cannot_be_read_is_somebodys_decision(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "spool-000.db").write_bytes(b"no database at all " * 300)
    with pytest.raises(LogUnavailable, match=r"spool-000\.db failed.*move the file away"):
        drain_leftovers(settings)


def test_a_receiver_is_not_ready_before_they_are_handed_on(settings: Settings) -> None:
    listening = threading.Event()
    [waiting_] = _readiness(settings, AppendProbe(settings), listening)
    assert waiting_.failed
    assert "before anything newer" in waiting_.detail
    listening.set()
    assert not any(finding.failed for finding in _readiness(settings, AppendProbe(settings), listening))


def test_room_in_a_spool_makes_nobody_ready_whose_log_is_embedded(
    leftovers: list[SpoolFile], settings: Settings, tmp_path: Path
) -> None:
    close(leftovers)
    (tmp_path / "log.db").write_bytes(b"no database at all " * 300)
    [log] = readiness(settings, AppendProbe(settings))
    assert log.failed
    assert "log.db" in log.detail
