"""Probes append to Kafka, which may answer every request and take no record."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from uuid import uuid4

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from ingest.errors import LogUnavailable
from ingest.event import PROBE
from ingest.log_probes import AppendProbe
from ingest.settings import Settings
from tests.support.polling import PATIENCE, wait_for

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(kafka_servers: list[str]) -> Settings:
    """Return settings with new topics, which exist."""
    settings = Settings.model_validate(
        {
            "log": f"kafka://{','.join(kafka_servers)}",
            "topic_prefix": f"t{uuid4().hex[:8]}",
            "kafka": {"partitions": 1, "replication_factor": 1},
        }
    )
    with closing(settings.build_log().producer()) as producer:
        producer.append(settings.audit_topic, []).result(PATIENCE)
        wait_for(lambda: passes(lambda: settings.build_log().probe_append()), "the topics are there")
    return settings


def passes(probe: Callable[[], None]) -> bool:
    try:
        probe()
    except LogUnavailable:
        return False
    return True


@contextmanager
def no_room_for_records(settings: Settings, servers: list[str]) -> Iterator[None]:
    """Make the audit topic refuse every record."""
    with closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:

        def allow(record_bytes: int) -> None:
            configs = {"max.message.bytes": str(record_bytes)}
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.audit_topic, configs)])

        allow(1)
        yield
        allow(1024 * 1024)


def probes(settings: Settings) -> int:
    with closing(settings.build_log().reader(None, [settings.audit_topic])) as reader:
        return sum(stored.record.headers["ce_type"] == PROBE for stored in reader.records())


def test_a_kafka_that_answers_and_takes_no_record_is_not_ready_until_it_does(
    settings: Settings, kafka_servers: list[str]
) -> None:
    probe = AppendProbe(settings)
    with no_room_for_records(settings, kafka_servers):
        settings.build_log().probe_append()
        for _ in range(3):
            with pytest.raises(LogUnavailable):
                probe()
    wait_for(lambda: passes(probe), "it takes records again")


def test_a_kafka_that_takes_records_gets_few_of_them(settings: Settings) -> None:
    probe = AppendProbe(settings)
    wait_for(lambda: passes(probe), "the first")
    for _ in range(5):
        probe()
    assert probes(settings) == 1
