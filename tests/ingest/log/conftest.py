"""The log a test runs over; `log` runs it over each."""

import logging
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.ingest.log.harness import KafkaFixture, LogFixture, SqliteFixture
from tests.ingest.log.sqlite_files import Writer
from tests.kafka.broker import Broker, fetch
from tests.support.polling import PATIENCE


@pytest.fixture
def sqlite_log(tmp_path: Path) -> Iterator[SqliteFixture]:
    with closing(SqliteFixture(tmp_path / "log.db")) as log:
        yield log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file of an embedded log is to be."""
    return tmp_path / "log.db"


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    process = Writer(path)
    yield process
    process.kill()


@pytest.fixture
def other(path: Path) -> Iterator[Writer]:
    process = Writer(path)
    yield process
    process.kill()


@pytest.fixture
def kafka_log(kafka_servers: list[str]) -> Iterator[KafkaFixture]:
    with closing(KafkaFixture(kafka_servers)) as log:
        yield log


@pytest.fixture(params=["sqlite_log", pytest.param("kafka_log", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest) -> LogFixture:
    fixture: LogFixture = request.getfixturevalue(request.param)
    return fixture


@pytest.fixture(scope="package")
def own_broker(kafka_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:  # noqa: ARG001  it skips
    broker = Broker(fetch(), tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.stop()


@pytest.fixture
def broker(own_broker: Broker, caplog: pytest.LogCaptureFixture) -> Iterator[Broker]:
    """One that tests may stop, and that each of them finds running.

    What kafka-python leaves open must be collected before a test ends: nothing may hold it, neither log
    records nor producers on their way out.
    """
    caplog.set_level(logging.CRITICAL, logger="kafka")
    own_broker.start()
    yield own_broker
    own_broker.thaw()
    for thread in threading.enumerate():
        if thread.name == "log-sender-before":
            thread.join(PATIENCE)
