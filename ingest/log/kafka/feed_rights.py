"""What the feed of changes needs of Kafka: its topic, and transactions. Nothing is written."""

from contextlib import closing
from typing import Any

from kafka import errors
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.protocol.metadata import CoordinatorType
from kafka.protocol.producer import InitProducerIdRequest

from ingest.errors import CommitFailed, LogUnavailable
from ingest.log.kafka.cluster import COMPACTED, Cluster
from ingest.log.kafka.rights import (
    check_right,
    check_topics,
    find_flaws,
    request_producer_id,
    retry_until_ready,
)
from ingest.log.kafka_settings import KafkaSettings
from ingest.readiness import Finding, State, failed, failure, ok, warning

_CLEANUP = "cleanup.policy"
_NO_TIMEOUT = 0  # no broker takes it, so none begins to remember the transactional id


def check_feed(servers: list[str], settings: KafkaSettings, group: str, topic: str) -> list[Finding]:
    """Check the feed's topic and the rights to it, and that consumers of a group may use transactions."""
    cluster = Cluster(servers, settings)
    try:
        with cluster.translated_errors(), closing(cluster.admin()) as admin:
            principal, flaws = cluster.principal, find_flaws(admin.describe_topics([topic]))
            refusals = cluster.refusals(admin, flaws.missing) if flaws.missing else {}
            topic_finding = check_topics(flaws, [topic], refusals, "feed topic")
            if topic_finding.state is State.OK and not flaws.missing:
                topic_finding = _check_compaction(admin, topic)
            return [
                topic_finding,
                check_right(
                    "feed write", principal, "WRITE", (*flaws.hidden, *flaws.unwritable), "append to"
                ),
                check_right("feed read", principal, "READ", (*flaws.hidden, *flaws.unreadable), "read"),
                _check_transactions(admin, principal, group),
            ]
    except (LogUnavailable, CommitFailed) as error:
        return [failure("feed", error)]


def _check_compaction(admin: Any, topic: str) -> Finding:
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, {_CLEANUP: None})
    configs = admin.describe_configs([resource], config_filter="all")["topic"][topic]
    if _CLEANUP not in configs:
        return ok("feed topic", f"{topic} exists; its {_CLEANUP} is not shown without DESCRIBE_CONFIGS")
    policy = configs[_CLEANUP]["value"]
    if policy == COMPACTED[_CLEANUP]:
        return ok("feed topic", f"{topic} exists, and keeps the newest state of each booking")
    return warning(
        "feed topic",
        f"{topic} has {_CLEANUP}={policy}: it forgets bookings that do not change",
        f"set {_CLEANUP}={COMPACTED[_CLEANUP]} on this topic",
    )


def _check_transactions(admin: Any, principal: str, group: str) -> Finding:
    """Check the right to the transactional ids of a group, and that there is a coordinator of them."""
    transactional_id = f"{group}.check"
    request = InitProducerIdRequest(
        transactional_id=transactional_id,
        transaction_timeout_ms=_NO_TIMEOUT,
        producer_id=-1,
        producer_epoch=-1,
    )
    code = retry_until_ready(lambda: request_producer_id(admin, request))
    if code == errors.TransactionalIdAuthorizationFailedError.errno:
        return failed(
            "feed transactions",
            f"{principal} may not use transactional ids that begin with {group}.",
            f"grant {principal} WRITE on the transactional ids with the prefix {group}.",
        )
    find = admin._find_coordinator_id  # noqa: SLF001 - kafka-python's other ways need Kafka 3
    try:
        retry_until_ready(lambda: admin._manager.run(find, transactional_id, CoordinatorType.TRANSACTION))  # noqa: SLF001
    except errors.KafkaError as error:
        return failed(
            "feed transactions",
            f"Kafka gives no coordinator of transactions ({type(error).__name__})",
            "a cluster of fewer than three brokers needs transaction.state.log.replication.factor and"
            " transaction.state.log.min.isr that it can meet",
        )
    return ok("feed transactions", f"{principal} may append to the feed in transactions")
