"""A single record is appended and read at the first try, long after idle connections were closed."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.ingest.log.harness import PATIENCE, KafkaFixture, append, numbered, read, values
from tests.kafka.broker import Broker, fetch

pytestmark = pytest.mark.kafka
ESTABLISHED = "01"


@pytest.fixture
def forgetful(kafka_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:  # noqa: ARG001  it skips
    """Run a broker that closes idle connections after a second instead of ten minutes."""
    broker = Broker(fetch(), tmp_path_factory.mktemp("kafka"), overrides="connections.max.idle.ms=1000\n")
    broker.start()
    yield broker
    broker.stop()


def connections(broker: Broker) -> set[str]:
    """Our ends of those to it."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {line[1] for line in lines if line[2].endswith(f":{broker.port:04X}") and line[3] == ESTABLISHED}


def test_a_lone_record_is_taken_and_read_after_idle_connections_were_closed(forgetful: Broker) -> None:
    with closing(KafkaFixture(forgetful.servers)) as log:
        producer, consumer = log.producer(), log.consumer()
        for number in range(3):
            append(producer, log.topic, *numbered(1, start=number))
            stored = read(consumer, 1)
            assert values(stored) == [str(number).encode()]
            consumer.commit(stored)
            open_, deadline = connections(forgetful), time.monotonic() + PATIENCE
            while (
                connections(forgetful) >= open_
            ):  # as sets: another may have taken the place of one that was closed
                assert time.monotonic() < deadline, "the broker kept all connections"
                assert consumer.poll(1, 0.1) == []
