"""`/readyz` says what the receiver cannot do, and why."""

import errno
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ingest.admin import build_admin
from ingest.errors import LogUnavailable
from ingest.log import Record
from ingest.log.sqlite import SqliteProducer
from ingest.settings import Settings
from receivers.spool import opening
from receivers.spool.opening import ready
from tests.receivers.in_process import ask
from tests.receivers.requests import Request
from tests.receivers.running import unused_port


def _settings(tmp_path: Path, log: str, spool_limit: int = 2**30) -> Settings:
    return Settings.model_validate({"log": log, "receiver": {"spool_dir": str(tmp_path / "spool"), "spool_limit": spool_limit}})


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

    monkeypatch.setattr(opening, "TemporaryFile", refused)


async def _body(check: Callable[[], str | None]) -> tuple[int, str]:
    answer = await ask(build_admin(check, None), Request("/readyz", method="GET"))
    return answer.status, answer.body.decode()


def test_an_embedded_log_that_can_be_read_and_written_is_ready(embedded: Settings) -> None:
    assert ready(embedded) is None


@pytest.mark.parametrize(
    ("number", "why"), [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system"), (errno.EACCES, "denied")]
)
def test_an_embedded_log_whose_disk_takes_no_write_is_not(
    embedded: Settings, monkeypatch: pytest.MonkeyPatch, number: int, why: str
) -> None:
    _refuse_writes(monkeypatch, number)
    with pytest.raises(LogUnavailable, match=f"the log's folder .* cannot be written to: .*{why}"):
        ready(embedded)


def test_kafka_away_and_a_spool_with_room_is_ready_with_a_warning(kafka: Settings) -> None:
    _spool(kafka)
    warning = ready(kafka)
    assert warning is not None
    assert "none of the brokers" in warning
    assert f"deliveries are kept in {kafka.receiver.spool_dir} meanwhile" in warning


def test_kafka_away_and_no_spool_is_not_ready_for_both_reasons(kafka: Settings) -> None:
    with pytest.raises(
        LogUnavailable, match=r"none of the brokers .*; and deliveries cannot be kept here meanwhile: there is no spool file"
    ):
        ready(kafka)


def test_kafka_away_and_a_full_spool_is_not_ready_for_both_reasons(tmp_path: Path) -> None:
    full = _settings(tmp_path, f"kafka://127.0.0.1:{unused_port()}", spool_limit=1024 * 1024)
    _spool(full, 2 * 1024 * 1024)
    with pytest.raises(LogUnavailable, match=r"all 1 spool files .* are full: receiver.spool_limit is 1048576 bytes"):
        ready(full)


def test_kafka_away_and_a_spool_that_cannot_be_written_to_is_not_ready(kafka: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    _spool(kafka)
    _refuse_writes(monkeypatch, errno.EROFS)
    with pytest.raises(LogUnavailable, match=r"receiver.spool_dir .* cannot be written to: Read-only"):
        ready(kafka)


def test_kafka_there_and_no_spool_is_ready_with_a_warning(kafka: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "probe", lambda _: None)
    warning = ready(kafka)
    assert warning is not None
    assert warning.startswith("deliveries will be answered 503 when Kafka is away: there is no spool file")
    _spool(kafka)
    assert ready(kafka) is None


@pytest.mark.parametrize(("warning", "text"), [(None, "ready\n"), ("Kafka is away", "ready\nwarning: Kafka is away\n")])
def test_a_warning_is_a_second_line_of_the_answer(warning: str | None, text: str) -> None:
    import asyncio

    assert asyncio.run(_body(lambda: warning)) == (200, text)
