"""Checks of a real Kafka name what is wrong and what to do, and leave nothing there."""

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from kafka import KafkaAdminClient, OffsetSpec, TopicPartition
from pydantic import SecretStr

from ingest.errors import LogDenied, LogUnavailable
from ingest.log.kafka import KafkaLogConsumer, KafkaLogProducer
from ingest.log.kafka.cluster import COMPACTED, Cluster
from ingest.log.kafka.feed_rights import check_feed
from ingest.log.kafka.rights import check_rights, find_flaws, require_read, require_write
from ingest.log.kafka_settings import KafkaSettings
from ingest.readiness import Finding, State
from tests.ingest.log.harness import append, numbered
from tests.kafka.broker import Broker, fetch
from tests.kafka.guarded import GuardedBroker
from tests.support.polling import PATIENCE, wait_for
from tests.support.ports import free_port

pytestmark = pytest.mark.kafka

GROUP = "group-of-the-tests"


@pytest.fixture(scope="module")
def guarded(kafka_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedBroker]:  # noqa: ARG001  it skips
    broker = GuardedBroker(tmp_path_factory.mktemp("guarded"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def user(guarded: GuardedBroker) -> str:
    return guarded.new_user()


@pytest.fixture
def topics(guarded: GuardedBroker) -> list[str]:
    """Two that are there."""
    names = [f"bookings.{uuid4().hex[:12]}.{number}" for number in range(2)]
    guarded.create(*names)
    return names


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def settled(
    broker: GuardedBroker, user: str, topics: list[str], enough: Callable[[dict[str, Finding]], bool]
) -> dict[str, Finding]:
    """Return the findings as soon as the broker knows the rights that were just granted."""

    def known_findings() -> dict[str, Finding]:
        findings = by_name(check_rights(broker.secure_servers, broker.settings(user), GROUP, topics))
        return findings if enough(findings) else {}

    return wait_for(known_findings, "the broker knows the rights")


def test_a_user_with_every_right_is_told_so(guarded: GuardedBroker, user: str, topics: list[str]) -> None:
    guarded.grant(user, "TOPIC", topics, "READ", "WRITE")
    guarded.grant(user, "GROUP", [GROUP], "READ")
    findings = settled(
        guarded, user, topics, lambda findings: not any(finding.failed for finding in findings.values())
    )
    assert {name: str(finding.state) for name, finding in findings.items()} == dict.fromkeys(
        ["log", "log topics", "log write", "log read", "log idempotence", "log group"], "ok"
    )
    require_write(guarded.secure_servers, guarded.settings(user), topics)
    require_read(guarded.secure_servers, guarded.settings(user), GROUP, topics)
    producer = KafkaLogProducer(guarded.secure_servers, guarded.settings(user), topics)
    with closing(producer):
        append(producer, topics[0], *numbered(1))  # what was promised is so
    with closing(KafkaLogConsumer(guarded.secure_servers, guarded.settings(user), GROUP, topics)) as consumer:
        consumer.commit(wait_for(lambda: consumer.poll(10, 1.0), "a record can be read"))


def test_a_user_without_rights_is_told_each_one_that_is_missing(
    guarded: GuardedBroker, user: str, topics: list[str]
) -> None:
    findings = by_name(check_rights(guarded.secure_servers, guarded.settings(user), GROUP, topics))
    assert [name for name, finding in findings.items() if not finding.failed] == ["log"]
    assert topics[0] in findings["log topics"].detail
    assert findings["log write"].remedy == f"grant User:{user} WRITE on these topics"
    assert findings["log read"].remedy == f"grant User:{user} READ on these topics"
    assert f"grant User:{user} IDEMPOTENT_WRITE on the cluster" in findings["log idempotence"].remedy
    assert findings["log group"].remedy == f"grant User:{user} READ on group {GROUP}"
    with pytest.raises(LogDenied, match=rf"lacks the right WRITE on {', '.join(sorted(topics[:2]))}"):
        require_write(guarded.secure_servers, guarded.settings(user), topics)
    with pytest.raises(LogDenied, match=rf"lacks the right READ on {', '.join(sorted(topics[:2]))}"):
        require_read(guarded.secure_servers, guarded.settings(user), GROUP, topics)


@pytest.mark.parametrize(
    ("granted", "failing"),
    [("WRITE", {"log read", "log group"}), ("READ", {"log write", "log idempotence", "log group"})],
)
def test_the_right_of_one_side_is_not_the_others(
    guarded: GuardedBroker, user: str, topics: list[str], granted: str, failing: set[str]
) -> None:
    guarded.grant(user, "TOPIC", topics, granted)
    findings = settled(
        guarded,
        user,
        topics,
        lambda findings: {name for name, finding in findings.items() if finding.failed} == failing,
    )
    assert {name for name, finding in findings.items() if finding.failed} == failing


def test_the_topic_without_a_right_is_the_one_that_is_named(
    guarded: GuardedBroker, user: str, topics: list[str]
) -> None:
    guarded.grant(user, "TOPIC", topics[:1], "READ", "WRITE")
    guarded.grant(user, "TOPIC", topics[1:], "READ")
    findings = settled(
        guarded,
        user,
        topics,
        lambda findings: not findings["log topics"].failed and not findings["log read"].failed,
    )
    assert topics[1] in findings["log write"].detail
    assert topics[0] not in findings["log write"].detail


def test_a_group_that_may_only_be_looked_at_is_not_enough(
    guarded: GuardedBroker, user: str, topics: list[str]
) -> None:
    guarded.grant(user, "TOPIC", topics, "READ", "WRITE")
    guarded.grant(user, "GROUP", [GROUP], "DESCRIBE")
    findings = settled(
        guarded,
        user,
        topics,
        lambda findings: {name for name, finding in findings.items() if finding.failed} == {"log group"},
    )
    assert {name for name, finding in findings.items() if finding.failed} == {"log group"}


def test_missing_topics_are_fine_for_who_may_create_them_and_are_not_created(
    guarded: GuardedBroker, user: str
) -> None:
    missing = f"bookings.{uuid4().hex[:12]}"
    guarded.grant(user, "TOPIC", [missing], "READ", "WRITE")
    findings = settled(
        guarded, user, [missing], lambda findings: "the right is missing" in findings["log topics"].detail
    )
    assert f"{missing}: the right is missing; create it, or grant CREATE" in findings["log topics"].detail
    with pytest.raises(LogDenied, match="grant CREATE"):
        require_write(guarded.secure_servers, guarded.settings(user), [missing])
    guarded.grant(user, "CLUSTER", ["kafka-cluster"], "CREATE")
    findings = settled(guarded, user, [missing], lambda findings: not findings["log topics"].failed)
    assert f"{missing} will be created at the first start" in findings["log topics"].detail
    assert missing not in guarded.topics()


def test_copies_that_the_cluster_cannot_hold_are_told_before_the_start(guarded: GuardedBroker) -> None:
    missing = f"bookings.{uuid4().hex[:12]}"
    findings = by_name(check_rights(guarded.servers, KafkaSettings(replication_factor=3), GROUP, [missing]))
    assert "InvalidReplicationFactorError" in findings["log topics"].detail
    assert "kafka.replication_factor" in findings["log topics"].detail


def test_looking_leaves_nothing_in_the_topics_and_makes_no_group(
    guarded: GuardedBroker, topics: list[str]
) -> None:
    group = f"group-{uuid4().hex[:12]}"
    before = guarded.topics()
    findings = check_rights(guarded.servers, KafkaSettings(), group, topics)
    assert not any(finding.failed for finding in findings)
    with closing(KafkaAdminClient(bootstrap_servers=guarded.servers)) as admin:
        ends = admin.list_partition_offsets({TopicPartition(topic, 0): OffsetSpec.LATEST for topic in topics})
        assert [end.offset for end in ends.values()] == [0, 0]
        assert group not in {finding["group_id"] for finding in admin.list_groups()}
    assert guarded.topics() == before


def test_the_feed_needs_its_topic_and_transactions(guarded: GuardedBroker, user: str) -> None:
    topic, group = f"bookings.{uuid4().hex[:12]}.changes", f"group-{uuid4().hex[:12]}"

    def findings() -> dict[str, Finding]:
        return by_name(check_feed(guarded.secure_servers, guarded.settings(user), group, topic))

    assert all(finding.failed for finding in findings().values())
    assert f"prefix {group}." in findings()["feed transactions"].remedy
    guarded.create(topic)
    guarded.grant(user, "TOPIC", [topic], "READ", "WRITE")
    guarded.grant(user, "TRANSACTIONAL_ID", [f"{group}.check"], "WRITE")
    wait_for(
        lambda: not any(finding.failed for finding in findings().values()), "the broker knows the rights"
    )
    assert "DESCRIBE_CONFIGS" in findings()["feed topic"].detail
    with closing(KafkaAdminClient(bootstrap_servers=guarded.servers)) as admin:
        assert group not in str(admin.list_transactions())


def test_a_feed_that_is_not_compacted_is_a_warning(guarded: GuardedBroker) -> None:
    topics = [f"bookings.{uuid4().hex[:12]}.changes" for _ in range(2)]
    guarded.create(topics[0])
    Cluster(guarded.servers, KafkaSettings()).ensure_topics(topics[1:], COMPACTED)
    seen = [check_feed(guarded.servers, KafkaSettings(), GROUP, topic)[0] for topic in topics]
    assert [finding.state for finding in seen] == [State.WARNING, State.OK]
    assert seen[0].remedy == "set cleanup.policy=compact on this topic"


def only(findings: list[Finding]) -> Finding:
    [finding] = findings
    assert finding.failed
    assert "-password" not in finding.sentence
    return finding


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"sasl_password": SecretStr("wrong")},
            (
                "the broker refused the SASL login of {user}:"
                " correct kafka.sasl_username and kafka.sasl_password"
            ),
        ),
        ({"sasl_username": "nobody"}, "the broker refused the SASL login of nobody"),
        (
            {"sasl_mechanism": "SCRAM-SHA-512"},
            "the broker does not offer kafka.sasl_mechanism SCRAM-SHA-512; it offers PLAIN",
        ),
        ({"sasl_mechanism": "SCRUM"}, "kafka.sasl_mechanism SCRUM cannot be used here: use one of PLAIN"),
        ({"sasl_mechanism": "GSSAPI"}, "kafka.sasl_mechanism GSSAPI cannot be used here: use one of PLAIN"),
        ({"sasl_mechanism": None, "sasl_password": None}, "kafka.sasl_mechanism, kafka.sasl_password too"),
        ({"sasl_password": None}, "set kafka.sasl_password too"),
        ({"ssl_cafile": None}, "by an authority that is not trusted here: set kafka.ssl_cafile"),
        (
            {"ssl_cafile": "nowhere.pem"},
            "kafka.ssl_cafile nowhere.pem cannot be read: No such file or directory",
        ),
        ({"ssl_cafile": __file__}, "holds no certificate in PEM form"),
        ({"ssl_keyfile": __file__}, "kafka.ssl_keyfile is set without kafka.ssl_certfile"),
        ({"ssl_certfile": __file__}, "are not a certificate and a private key in PEM form"),
        (
            {"security_protocol": "PLAINTEXT"},
            "the port expects TLS: set kafka.security_protocol to SSL or SASL_SSL",
        ),
        (
            {"security_protocol": "SSL"},
            "It may want a login: set kafka.security_protocol to SASL_PLAINTEXT or SASL_SSL",
        ),
    ],
)
def test_why_a_secure_broker_does_not_let_us_in_is_told(
    guarded: GuardedBroker, change: dict[str, object], message: str
) -> None:
    settings = guarded.settings("user0", **change)
    findings = only(check_rights(guarded.secure_servers, settings, GROUP, ["bookings.some"]))
    assert message.format(user="user0") in findings.detail
    assert findings.unreachable == ("closed the connection" in findings.detail), (
        "no waiting mends what was refused"
    )
    error = KafkaLogProducer(guarded.secure_servers, settings, ["bookings.some"])
    with closing(error):
        failure = error.append("bookings.some", numbered(1)).exception(PATIENCE)
    assert message.format(user="user0") in str(failure), "the receiver says the same"


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("SASL_SSL", "the port does not answer with TLS"),
        ("SASL_PLAINTEXT", "this port takes no login: set kafka.security_protocol to PLAINTEXT"),
    ],
)
def test_a_secure_client_at_a_plain_port_is_told(guarded: GuardedBroker, protocol: str, message: str) -> None:
    settings = guarded.settings("user0", security_protocol=protocol)
    assert message in only(check_rights(guarded.servers, settings, GROUP, ["bookings.some"])).detail


def test_a_certificate_for_another_name_is_told(guarded: GuardedBroker) -> None:
    server = guarded.secure_servers[0].replace("127.0.0.1", "localhost")
    findings = only(check_rights([server], guarded.settings("user0"), GROUP, ["bookings.some"]))
    assert (
        "the server's certificate is not for localhost: name the broker in log as its certificate does"
        in findings.detail
    )


def test_a_key_with_a_pass_phrase_is_told_instead_of_asked_for(
    guarded: GuardedBroker, tmp_path: Path
) -> None:
    pair = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-passout",
            "pass:secret",
            "-subj",
            "/CN=a",
            *pair,
        ],
        check=True,
        capture_output=True,
    )
    settings = guarded.settings(
        "user0", ssl_certfile=str(tmp_path / "cert.pem"), ssl_keyfile=str(tmp_path / "key.pem")
    )
    assert (
        "is encrypted: give one without a pass phrase"
        in only(check_rights(guarded.secure_servers, settings, GROUP, ["bookings.some"])).detail
    )


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ("127.0.0.1:{port}", "no connection (Connection refused)"),
        ("nowhere.invalid:9092", "the name nowhere.invalid cannot be resolved"),
    ],
)
def test_a_broker_that_is_not_there_is_told_and_may_come_back(server: str, message: str) -> None:
    findings = only(
        check_rights([server.format(port=free_port())], KafkaSettings(), GROUP, ["bookings.some"])
    )
    assert message in findings.detail
    assert findings.unreachable


def test_a_port_that_is_not_kafka_is_told() -> None:
    def greet(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            connection.recv(1024)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=greet, args=(server,), daemon=True).start()
        with pytest.raises(LogUnavailable, match="It may not be Kafka"):
            require_write([f"127.0.0.1:{server.getsockname()[1]}"], KafkaSettings(), ["bookings.some"])


def test_a_broker_that_names_an_address_out_of_reach_is_told(kafka_tools: None, tmp_path: Path) -> None:  # noqa: ARG001  it skips
    port, elsewhere, controller = free_port(), free_port(), free_port()
    overrides = (
        f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n"
        f"advertised.listeners=PLAINTEXT://127.0.0.1:{elsewhere}\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n"
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n"
    )
    broker = Broker(fetch(), tmp_path, port, overrides=overrides)
    broker.start()
    try:
        findings = check_rights(broker.servers, KafkaSettings(), GROUP, ["bookings.some"])
    finally:
        broker.stop()
    assert findings[0].failed
    assert f"127.0.0.1:{elsewhere}" in findings[0].detail
    assert "advertised.listeners" in findings[0].remedy


def test_old_brokers_that_tell_no_rights_are_trusted() -> None:
    partition = {"leader_id": 1, "isr_nodes": [1], "replica_nodes": [1, 2]}
    topic = {"name": "a", "error_code": 0, "authorized_operations": None, "partitions": [partition]}
    findings = find_flaws([topic, {**topic, "name": "b", "partitions": [{**partition, "leader_id": -1}]}])
    assert (findings.behind, findings.leaderless) == (("a",), ("b",))
    assert findings.unreadable == findings.unwritable == ()
