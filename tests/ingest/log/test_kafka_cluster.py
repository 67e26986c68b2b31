"""A cluster of several brokers: the copies of a record, and how many an acknowledgement promises."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource

from ingest.log.kafka_settings import KafkaSettings
from tests.ingest.log.harness import KafkaFixture, append, numbered
from tests.kafka.broker import fetch, free_port
from tests.kafka.cluster import make_cluster, start_all

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def three(kafka_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:  # noqa: ARG001  it skips
    """Return the addresses of three nodes that make three replicas by default and need one."""
    ports = [free_port() for _ in range(3)]
    nodes = make_cluster(fetch(), tmp_path_factory.mktemp("cluster"), ports, ports)
    try:
        start_all(nodes)
        yield [f"127.0.0.1:{port}" for port in ports]
    finally:
        for node in nodes:
            node.kill()


@pytest.mark.parametrize(
    ("settings", "copies", "needed"),
    [
        (KafkaSettings(replication_factor=3), 3, "2"),
        (KafkaSettings(replication_factor=2), 2, "1"),
        (KafkaSettings(), 3, "1"),
    ],
    ids=["three are asked for", "two are asked for", "as the brokers have it"],
)
def test_of_three_copies_two_are_needed_to_acknowledge(
    three: list[str], settings: KafkaSettings, copies: int, needed: str
) -> None:
    with closing(KafkaFixture(three)) as log:
        log.settings = settings
        append(log.producer(), log.topic, *numbered(1))
        with closing(KafkaAdminClient(bootstrap_servers=three)) as admin:
            [topic] = admin.describe_topics([log.topic])
            described = admin.describe_configs([ConfigResource("topic", log.topic)], config_filter="all")[
                "topic"
            ][log.topic]
    assert {len(partition["replica_nodes"]) for partition in topic["partitions"]} == {copies}
    assert described["min.insync.replicas"]["value"] == needed
