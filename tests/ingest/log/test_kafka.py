"""The log on Kafka: partitions that move, copies, records refused or appended by others, TLS and SASL."""

import os
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource
from pydantic import SecretStr

from ingest.dead_letter import DeadLetter
from ingest.errors import CommitFailed, LogUnavailable
from ingest.log import Consumer, Partition, Record, StoredRecord
from ingest.log.kafka import KafkaLogConsumer
from ingest.log.kafka import consumer as consumer_module
from ingest.log.kafka_settings import LARGEST_BODY, KafkaSettings
from tests.ingest.log.harness import QUICKLY, KafkaFixture, append, numbered, read, values
from tests.kafka.broker import Broker, fetch
from tests.kafka.cluster import make_cluster, start_all
from tests.support.polling import PATIENCE, Deadline
from tests.support.ports import free_port

pytestmark = pytest.mark.kafka


def test_topics_are_made_as_the_settings_say(kafka_log: KafkaFixture) -> None:
    kafka_log.settings = KafkaSettings(partitions=5)
    append(kafka_log.producer(), kafka_log.topic, *numbered(1))
    assert [entry.partition.number for entry in kafka_log.backlog()] == [0, 1, 2, 3, 4]


def test_a_topic_that_cannot_be_made_is_named(kafka_log: KafkaFixture) -> None:
    kafka_log.settings = KafkaSettings(replication_factor=3)
    error = kafka_log.producer().append(kafka_log.topic, numbered(1)).exception(PATIENCE)
    assert isinstance(error, LogUnavailable)
    assert kafka_log.topic in str(error)
    assert "kafka.replication_factor" in str(error)


def test_a_record_the_broker_refuses_fails_alone(kafka_log: KafkaFixture) -> None:
    with closing(KafkaAdminClient(bootstrap_servers=kafka_log.servers)) as admin:
        small = {"num_partitions": 1, "replication_factor": 1, "configs": {"max.message.bytes": "100000"}}
        admin.create_topics({kafka_log.topic: small}, wait_for_metadata=True)
    producer = kafka_log.producer()
    for number in range(3):
        refused = producer.append(kafka_log.topic, [Record("booking-1", os.urandom(200_000))])
        assert isinstance(refused.exception(QUICKLY), LogUnavailable)
        append(producer, kafka_log.topic, *numbered(1, start=number))
    assert values(read(kafka_log.consumer(), 3)) == [b"0", b"1", b"2"]


def test_a_record_no_broker_could_take_fails_alone(kafka_log: KafkaFixture) -> None:
    producer = kafka_log.producer()
    append(producer, kafka_log.topic, *numbered(1))
    refused = producer.append(
        kafka_log.topic, [Record("booking-1", b"with it"), Record("booking-1", bytes(30 * 1024 * 1024))]
    )
    assert isinstance(refused.exception(QUICKLY), LogUnavailable)
    append(producer, kafka_log.topic, *numbered(1, start=1))


def test_the_largest_body_fits_with_the_largest_head_as_a_dead_letter_too(kafka_log: KafkaFixture) -> None:
    head, now = {"x-quotes": '"' * 64 * 1024}, datetime.now(UTC)
    letter = DeadLetter(
        source="sales",
        reason="unreadable_payload",
        detail="",
        happened_at=now,
        data=os.urandom(LARGEST_BODY),
        headers=head,
    )
    append(kafka_log.producer(), kafka_log.topic, letter.to_record())
    [stored] = read(kafka_log.consumer(), 1)
    assert stored.record == letter.to_record()


def test_records_by_other_hands_are_readable(kafka_log: KafkaFixture) -> None:
    append(kafka_log.producer(), kafka_log.topic, Record("booking-1", b"ours"))
    foreign = KafkaProducer(bootstrap_servers=kafka_log.servers)
    for key, value, headers in (
        (b"tombstone", None, []),
        (None, b"without a key", []),
        (b"\xff\xfe", b"key not UTF-8", []),
        (b"header", b"not UTF-8", [("name", b"\xff")]),
    ):
        foreign.send(kafka_log.topic, key=key, value=value, headers=headers)
    foreign.close()
    records = {stored.record.key: stored.record for stored in read(kafka_log.consumer(), 5)}
    assert records["tombstone"].value == b""
    assert records[""].value == b"without a key"
    assert records["\ufffd\ufffd"].value == b"key not UTF-8"
    assert records["header"].headers == {"name": "\ufffd"}


def secured(broker: Broker, password: str) -> KafkaSettings:
    return KafkaSettings(
        security_protocol="SASL_SSL",
        ssl_cafile=str(broker.cafile),
        sasl_mechanism="PLAIN",
        sasl_username=broker.user,
        sasl_password=SecretStr(password),
        partitions=3,
    )


def test_tls_and_sasl_settings_reach_the_brokers(broker: Broker) -> None:
    log = KafkaFixture(broker.secure_servers)
    log.settings = secured(broker, broker.password)
    with closing(log):
        append(log.producer(), log.topic, *numbered(2))
        consumer = log.consumer()
        consumer.commit(read(consumer, 2)[:1])
        assert sum(entry.lag for entry in log.backlog()) == 1


def test_a_wrong_password_is_told_without_the_password(broker: Broker) -> None:
    log = KafkaFixture(broker.secure_servers)
    log.settings = secured(broker, "wrong-password")
    with closing(log):
        error = log.producer().append(log.topic, numbered(1)).exception(QUICKLY)
        assert isinstance(error, LogUnavailable)
        assert "SASL" in str(error)
        assert "wrong-password" not in str(error)


def test_a_broker_whose_certificate_is_not_trusted_is_refused(broker: Broker) -> None:
    log = KafkaFixture(broker.secure_servers)
    log.settings = secured(broker, broker.password).model_copy(update={"ssl_cafile": None})
    with closing(log):
        assert isinstance(log.producer().append(log.topic, numbered(1)).exception(QUICKLY), LogUnavailable)


def test_two_consumers_share_the_partitions_and_handle_every_record(kafka_log: KafkaFixture) -> None:
    producer, first = kafka_log.producer(), kafka_log.consumer()
    keys = [f"booking-{number}" for number in range(40)]
    append(producer, kafka_log.topic, *(Record(key, b"before") for key in keys))
    before = read(first, 40)
    second = kafka_log.consumer()
    by_second = poll_until_shared(first, second)
    retained = [stored for stored in before if stored.partition in assigned(first)]
    moved = [stored for stored in before if stored.partition in assigned(second)]
    assert retained
    assert moved
    assert len(retained) + len(moved) == 40

    with pytest.raises(CommitFailed, match=kafka_log.group):
        first.commit(before)
    first.commit(retained)
    first.rewind()
    append(producer, kafka_log.topic, *(Record(key, b"after") for key in keys))
    by_first: list[StoredRecord] = []
    deadline = Deadline("all records are read again")
    while len(by_first) + len(by_second) < 40 + len(moved):
        deadline.check()
        by_first += first.poll(100, 0.1)
        by_second += second.poll(100, 0.1)
    assert {stored.record.value for stored in by_first} == {b"after"}
    assert sorted(stored.record.key for stored in by_second if stored.record.value == b"before") == sorted(
        stored.record.key for stored in moved
    )
    assert {stored.partition for stored in by_first} <= assigned(first)
    first.commit(by_first)
    second.commit(by_second)
    assert sum(entry.lag for entry in kafka_log.backlog()) == 0


def test_a_consumer_that_leaves_hands_what_it_did_not_commit_to_the_other(kafka_log: KafkaFixture) -> None:
    producer, first = kafka_log.producer(), kafka_log.consumer()
    append(producer, kafka_log.topic, *(Record(f"booking-{number}", b"") for number in range(40)))
    first.commit(read(first, 40))
    second = kafka_log.consumer()
    poll_until_shared(first, second)
    generation = first.generation()
    append(producer, kafka_log.topic, *(Record(f"booking-{number}", b"again") for number in range(40)))
    by_second: list[StoredRecord] = []
    while not by_second:
        by_second = second.poll(100, 0.5)
    kafka_log.leave(second)
    again = read(first, 40)
    assert {stored.record.value for stored in again} == {b"again"}
    assert len({stored.record.key for stored in again}) == 40
    assert first.generation() > generation


def test_a_consumer_that_was_away_too_long_cannot_commit(
    kafka_log: KafkaFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(consumer_module._OPTIONS, "max_poll_interval_ms", 1_000)
    monkeypatch.setitem(consumer_module._OPTIONS, "session_timeout_ms", 6_000)
    append(kafka_log.producer(), kafka_log.topic, *numbered(3))
    consumer = kafka_log.consumer()
    records, generation = read(consumer, 3), consumer.generation()
    deadline = Deadline("the consumer is removed from its group")
    while is_member(consumer):
        deadline.check()
    with pytest.raises(CommitFailed):
        consumer.commit(records)
    assert values(read(consumer, 3)) == [b"0", b"1", b"2"]
    assert consumer.generation() > generation


def poll_until_shared(first: Consumer, second: Consumer) -> list[StoredRecord]:
    """Return what the second consumer polls until both have partitions; the first has nothing to read."""
    generation, by_second = first.generation(), []
    deadline = Deadline("both consumers have partitions")
    while first.generation() == generation or not assigned(second):
        deadline.check()
        assert first.poll(100, 0.1) == []
        by_second += second.poll(100, 0.1)
    return by_second


def assigned(consumer: Consumer) -> set[Partition]:
    assert isinstance(consumer, KafkaLogConsumer)
    return {Partition(*partition) for partition in consumer._consumer.assignment()}


def is_member(consumer: Consumer) -> bool:
    assert isinstance(consumer, KafkaLogConsumer)
    return bool(consumer._consumer.group_metadata().member_id)


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
