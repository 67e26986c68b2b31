"""The log a test runs over; `log` runs it over each."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.log.harness import KafkaLog, Log, SqliteLog


@pytest.fixture
def sqlite_log(tmp_path: Path) -> Iterator[SqliteLog]:
    with closing(SqliteLog(tmp_path / "log.db")) as log:
        yield log


@pytest.fixture
def kafka_log(kafka_servers: list[str]) -> Iterator[KafkaLog]:
    with closing(KafkaLog(kafka_servers)) as log:
        yield log


@pytest.fixture(params=["sqlite_log", pytest.param("kafka_log", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest) -> Log:
    found: Log = request.getfixturevalue(request.param)
    return found
