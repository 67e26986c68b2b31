"""What these settings may do at the brokers, asked without leaving anything there: nothing is written, no group is joined."""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from kafka import errors
from kafka.admin import MemberToRemove
from kafka.protocol.producer import InitProducerIdRequest

from ingest.errors import CommitFailed, LogDenied, LogUnavailable
from ingest.finding import Finding, failed, failure, ok, warning
from ingest.log.kafka.cluster import Cluster
from ingest.log.kafka.knock import Welcome, connect, knock
from ingest.log.kafka_settings import KafkaSettings

T = TypeVar("T")

_PATIENCE_SECONDS = 5.0
_ASK_AGAIN_SECONDS = 0.1
_RENEW_WITHIN = timedelta(days=14)
_LOADING = {14, 15, 16, 51}  # a coordinator that is not ready yet


@dataclass(frozen=True, slots=True)
class Topics:
    """Of the topics that are needed: which are hidden from us, missing, without a leader, behind in a replica, and which rights lack where."""

    hidden: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    leaderless: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    unwritable: tuple[str, ...] = ()


def look(servers: list[str], settings: KafkaSettings, group: str, topics: Sequence[str]) -> list[Finding]:
    """Everything that receiver, consumer and reconciliation need of Kafka; one finding where it cannot be reached at all."""
    cluster = Cluster(servers, settings)
    try:
        first = _brokers(cluster.address, knock(servers, settings))
        if first.failed:
            return [first]
        with cluster.translated_errors(), closing(cluster.admin()) as admin:
            return [first, *_look(cluster, admin, group, topics)]
    except (LogUnavailable, CommitFailed) as error:
        return [failure("log", error)]


def may_write(servers: list[str], settings: KafkaSettings, topics: Sequence[str]) -> None:
    """Whether Kafka would take a record of each topic now. Raises LogUnavailable."""
    cluster = Cluster(servers, settings)
    with cluster.translated_errors(), closing(cluster.admin()) as admin:
        found = sort_topics(admin.describe_topics(list(topics)))
        _insist(cluster, "WRITE", found.hidden, found.unwritable, found.leaderless)
        if found.missing and (refusals := cluster.refusals(admin, found.missing)):
            raise LogDenied(
                f"topics are missing: {'; '.join(f'{name}: {reason}' for name, reason in refusals.items())}"
            )


def may_read(servers: list[str], settings: KafkaSettings, group: str, topics: Sequence[str]) -> None:
    """Whether Kafka would give this group the records of each topic now. Raises LogUnavailable."""
    cluster = Cluster(servers, settings)
    with cluster.translated_errors(), closing(cluster.admin()) as admin:
        found = sort_topics(admin.describe_topics(list(topics)))
        _insist(cluster, "READ", found.hidden, found.unreadable, found.leaderless)
        _probe_group(admin, group)


def _insist(
    cluster: Cluster, right: str, hidden: Sequence[str], without: Sequence[str], leaderless: Sequence[str]
) -> None:
    if hidden or without:
        names = ", ".join(sorted((*hidden, *without)))
        raise LogDenied(
            f"Kafka at {cluster.address}: {cluster.principal} lacks the right {right} on {names}; grant it"
        )
    if leaderless:
        raise LogUnavailable(
            f"Kafka at {cluster.address}: no broker leads a partition of {', '.join(leaderless)}; start those that have it"
        )


def sort_topics(described: Iterable[Mapping[str, Any]]) -> Topics:
    """Old brokers do not tell rights: those are taken as granted."""
    sorted_: dict[str, list[str]] = {}
    for topic in described:
        name, error, rights = topic["name"], topic["error_code"], topic.get("authorized_operations")
        if error == errors.TopicAuthorizationFailedError.errno:
            sorted_.setdefault("hidden", []).append(name)
            continue
        if error == errors.UnknownTopicOrPartitionError.errno:
            sorted_.setdefault("missing", []).append(name)
        for flaw in _flaws(topic["partitions"], rights):
            sorted_.setdefault(flaw, []).append(name)
    return Topics(**{flaw: tuple(sorted(names)) for flaw, names in sorted_.items()})


def _flaws(partitions: Sequence[Mapping[str, Any]], rights: Sequence[str] | None) -> Iterator[str]:
    if any(partition["leader_id"] < 0 for partition in partitions):
        yield "leaderless"
    elif any(len(partition["isr_nodes"]) < len(partition["replica_nodes"]) for partition in partitions):
        yield "behind"
    if rights is not None and "READ" not in rights:
        yield "unreadable"
    if rights is not None and "WRITE" not in rights:
        yield "unwritable"


def _look(cluster: Cluster, admin: Any, group: str, topics: Sequence[str]) -> Iterator[Finding]:
    found = sort_topics(admin.describe_topics(list(topics)))
    who = cluster.principal
    yield _topics(found, topics, cluster.refusals(admin, found.missing) if found.missing else {})
    yield _right("log write", who, "WRITE", (*found.hidden, *found.unwritable), "append to")
    yield _right("log read", who, "READ", (*found.hidden, *found.unreadable), "read")
    yield _idempotence(admin, who)
    yield _group(admin, who, group)


def _brokers(address: str, welcome: Welcome) -> Finding:
    """Clients are sent on to the addresses that the brokers name: these must be reachable too."""
    with ThreadPoolExecutor(len(welcome.brokers) or 1) as threads:
        problems = dict(
            zip(
                welcome.brokers,
                threads.map(lambda broker: _unreachable(*broker), welcome.brokers),
                strict=True,
            )
        )
    if names := [f"{host}:{port} ({problem})" for (host, port), problem in problems.items() if problem]:
        remedy = "correct advertised.listeners of the brokers, or DNS and firewall here"
        return failed(
            "log",
            f"Kafka at {address} sends us on to what cannot be reached from here: {', '.join(names)}",
            remedy,
        )
    if welcome.expires and welcome.expires - datetime.now(UTC) < _RENEW_WITHIN:
        return warning(
            "log",
            f"the certificate of {welcome.server} expires on {welcome.expires:%Y-%m-%d}",
            "renew it at the broker",
        )
    count = len(problems)
    return ok("log", f"Kafka at {address} lets us in; {count} broker{'' if count == 1 else 's'}")


def _unreachable(host: str, port: int) -> str:
    try:
        connect(host, port).close()
    except LogUnavailable as error:
        return str(error).partition(":")[0]
    return ""


def _topics(found: Topics, topics: Sequence[str], refusals: Mapping[str, str]) -> Finding:
    if refusals:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refusals.items())
        return failed("log topics", f"missing topics that could not be created: {reasons}")
    if found.hidden:
        return failed(
            "log topics",
            f"the rights to see {', '.join(found.hidden)} are missing",
            "grant READ and WRITE on them; CREATE too if missing",
        )
    if found.leaderless:
        return failed(
            "log topics",
            f"no broker leads a partition of {', '.join(found.leaderless)}",
            "start the brokers that have its replicas",
        )
    if found.behind:
        return warning(
            "log topics",
            f"a replica is behind in {', '.join(found.behind)}",
            "look at the broker that has it",
        )
    if found.missing:
        return ok(
            "log topics",
            f"{', '.join(found.missing)} will be created at the first start; {len(topics) - len(found.missing)} exist",
        )
    return ok("log topics", f"all {len(topics)} exist")


def _right(check: str, who: str, right: str, without: Sequence[str], what: str) -> Finding:
    if without:
        names = ", ".join(sorted(without))
        return failed(check, f"{who} may not {what} {names}", f"grant {who} {right} on these topics")
    return ok(check, f"{who} may {what} every topic")


def _idempotence(admin: Any, who: str) -> Finding:
    """A producer gets such a number when it starts; one more leaves nothing behind."""
    request = InitProducerIdRequest(
        transactional_id=None, transaction_timeout_ms=1000, producer_id=-1, producer_epoch=-1
    )

    def ask() -> int:
        code: int = admin._manager.run(admin._manager.send, request).error_code  # noqa: SLF001 - kafka-python has no other way
        if code in _LOADING:
            raise errors.CoordinatorLoadInProgressError
        return code

    code = _patiently(ask)
    if code == errors.ClusterAuthorizationFailedError.errno:
        remedy = f"grant {who} IDEMPOTENT_WRITE on the cluster; since Kafka 2.8 WRITE on a topic is enough"
        return failed("log idempotence", f"{who} may not write idempotently", remedy)
    if code:
        return failed(
            "log idempotence",
            f"Kafka gives no producer id: {errors.for_code(code).__name__}",
            "look at the brokers' logs",
        )
    return ok("log idempotence", f"{who} may write idempotently")


def _group(admin: Any, who: str, group: str) -> Finding:
    try:
        _probe_group(admin, group)
    except errors.GroupAuthorizationFailedError:
        return failed(
            "log group", f"{who} may not use the consumer group {group}", f"grant {who} READ on group {group}"
        )
    return ok("log group", f"{who} may use the consumer group {group}")


def _probe_group(admin: Any, group: str) -> None:
    """Takes out a member that was never in it, which needs the same right as to join. Raises KafkaError."""
    nobody = [MemberToRemove(member_id=f"ingest-check-{uuid.uuid4()}")]

    def ask() -> None:
        try:
            admin.remove_group_members(group, nobody)
        except errors.UnknownMemberIdError:
            return

    _patiently(ask)


def _patiently(ask: Callable[[], T]) -> T:
    """A cluster's first question about groups or producers has it make the topic for them, and is refused meanwhile."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return ask()
        except errors.RetriableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_ASK_AGAIN_SECONDS)
