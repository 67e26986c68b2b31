"""The rights of these settings at the brokers, found out without writing anything or joining a group."""

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from kafka import errors
from kafka.admin import MemberToRemove
from kafka.protocol.producer import InitProducerIdRequest

from ingest.errors import CommitFailed, LogDenied, LogUnavailable
from ingest.log.kafka.cluster import Cluster
from ingest.log.kafka.handshake import Handshake, connect, handshake
from ingest.log.kafka_settings import KafkaSettings
from ingest.readiness import Finding, failed, failure, ok, warning

T = TypeVar("T")

_READY_SECONDS = 5.0
_RETRY_SECONDS = 0.1
_RENEW_WITHIN = timedelta(days=14)
_LOADING = {14, 15, 16, 51}  # error codes of a coordinator that is not ready yet


@dataclass(frozen=True, slots=True)
class TopicFlaws:
    """Names of topics by what is wrong with them."""

    hidden: tuple[str, ...] = ()  # without the right to see them
    missing: tuple[str, ...] = ()
    leaderless: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()  # in a replica
    unreadable: tuple[str, ...] = ()
    unwritable: tuple[str, ...] = ()


def check_rights(
    servers: list[str], settings: KafkaSettings, group: str, topics: Sequence[str]
) -> list[Finding]:
    """Check all that the commands need of Kafka; return one finding when it cannot be reached at all."""
    cluster = Cluster(servers, settings)
    try:
        brokers = _check_brokers(cluster.address, handshake(servers, settings))
        if brokers.failed:
            return [brokers]
        with cluster.translated_errors(), closing(cluster.admin()) as admin:
            flaws = find_flaws(admin.describe_topics(list(topics)))
            principal = cluster.principal
            refusals = cluster.refusals(admin, flaws.missing) if flaws.missing else {}
            return [
                brokers,
                check_topics(flaws, topics, refusals),
                check_right("log write", principal, "WRITE", (*flaws.hidden, *flaws.unwritable), "append to"),
                check_right("log read", principal, "READ", (*flaws.hidden, *flaws.unreadable), "read"),
                _check_idempotence(admin, principal),
                _check_group(admin, principal, group),
            ]
    except (LogUnavailable, CommitFailed) as error:
        return [failure("log", error)]


def require_write(servers: list[str], settings: KafkaSettings, topics: Sequence[str]) -> None:
    """Raise LogUnavailable when Kafka would not take a record for each topic now."""
    cluster = Cluster(servers, settings)
    with cluster.translated_errors(), closing(cluster.admin()) as admin:
        flaws = find_flaws(admin.describe_topics(list(topics)))
        _require_right(cluster, "WRITE", flaws.hidden, flaws.unwritable, flaws.leaderless)
        if flaws.missing and (refusals := cluster.refusals(admin, flaws.missing)):
            raise LogDenied(
                f"topics are missing: {'; '.join(f'{name}: {reason}' for name, reason in refusals.items())}"
            )


def require_read(servers: list[str], settings: KafkaSettings, group: str, topics: Sequence[str]) -> None:
    """Raise LogUnavailable when Kafka would not give this group the records of each topic now."""
    cluster = Cluster(servers, settings)
    with cluster.translated_errors(), closing(cluster.admin()) as admin:
        flaws = find_flaws(admin.describe_topics(list(topics)))
        _require_right(cluster, "READ", flaws.hidden, flaws.unreadable, flaws.leaderless)
        _probe_group(admin, group)


def _require_right(
    cluster: Cluster, right: str, hidden: Sequence[str], without: Sequence[str], leaderless: Sequence[str]
) -> None:
    if hidden or without:
        names = ", ".join(sorted((*hidden, *without)))
        raise LogDenied(
            f"Kafka at {cluster.address}: {cluster.principal} lacks the right {right} on {names}; grant it"
        )
    if leaderless:
        raise LogUnavailable(
            f"Kafka at {cluster.address}: no broker leads a partition of {', '.join(leaderless)}; start those"
            " that have it"
        )


def find_flaws(descriptions: Iterable[Mapping[str, Any]]) -> TopicFlaws:
    """Return what is wrong with topics. Old brokers do not tell rights; those count as granted."""
    names: dict[str, list[str]] = {}
    for topic in descriptions:
        name, error = topic["name"], topic["error_code"]
        if error == errors.TopicAuthorizationFailedError.errno:
            names.setdefault("hidden", []).append(name)
            continue
        if error == errors.UnknownTopicOrPartitionError.errno:
            names.setdefault("missing", []).append(name)
        partitions, rights = topic["partitions"], topic.get("authorized_operations")
        if any(partition["leader_id"] < 0 for partition in partitions):
            names.setdefault("leaderless", []).append(name)
        elif any(len(partition["isr_nodes"]) < len(partition["replica_nodes"]) for partition in partitions):
            names.setdefault("behind", []).append(name)
        for right, flaw in (("READ", "unreadable"), ("WRITE", "unwritable")):
            if rights is not None and right not in rights:
                names.setdefault(flaw, []).append(name)
    return TopicFlaws(**{flaw: tuple(sorted(topics)) for flaw, topics in names.items()})


def _check_brokers(address: str, login: Handshake) -> Finding:
    """Check that the addresses are reachable that the brokers name, to which clients are sent on."""

    def explain(broker: tuple[str, int]) -> str:
        try:
            connect(*broker).close()
        except LogUnavailable as error:
            return str(error).partition(":")[0]
        return ""

    with ThreadPoolExecutor(len(login.brokers) or 1) as threads:
        problems = dict(zip(login.brokers, threads.map(explain, login.brokers), strict=True))
    if names := [f"{host}:{port} ({problem})" for (host, port), problem in problems.items() if problem]:
        remedy = "correct advertised.listeners of the brokers, or DNS and firewall here"
        return failed(
            "log",
            f"Kafka at {address} refers clients to addresses that cannot be reached from here: "
            f"{', '.join(names)}",
            remedy,
        )
    if login.certificate_expires_at and login.certificate_expires_at - datetime.now(UTC) < _RENEW_WITHIN:
        return warning(
            "log",
            f"the certificate of {login.server} expires on {login.certificate_expires_at:%Y-%m-%d}",
            "renew it at the broker",
        )
    count = len(problems)
    return ok("log", f"Kafka at {address} lets us in; {count} broker{'' if count == 1 else 's'}")


def check_topics(
    flaws: TopicFlaws, topics: Sequence[str], refusals: Mapping[str, str], check: str = "log topics"
) -> Finding:
    """Return the finding `check` about topics, of which some cannot be created for reasons."""
    if refusals:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refusals.items())
        return failed(check, f"missing topics that could not be created: {reasons}")
    if flaws.hidden:
        return failed(
            check,
            f"the rights to see {', '.join(flaws.hidden)} are missing",
            "grant READ and WRITE on them; CREATE too if missing",
        )
    if flaws.leaderless:
        return failed(
            check,
            f"no broker leads a partition of {', '.join(flaws.leaderless)}",
            "start the brokers that have its replicas",
        )
    if flaws.behind:
        return warning(
            check,
            f"a replica is behind in {', '.join(flaws.behind)}",
            "look at the broker that has it",
        )
    if flaws.missing:
        return ok(
            check,
            f"{', '.join(flaws.missing)} will be created at the first start;"
            f" {len(topics) - len(flaws.missing)} exist",
        )
    return ok(check, f"all {len(topics)} exist")


def check_right(check: str, principal: str, right: str, without: Sequence[str], what: str) -> Finding:
    """Return the finding `check` about a right, and the topics without it."""
    if without:
        names = ", ".join(sorted(without))
        return failed(
            check, f"{principal} may not {what} {names}", f"grant {principal} {right} on these topics"
        )
    return ok(check, f"{principal} may {what} every topic")


def _check_idempotence(admin: Any, principal: str) -> Finding:
    """Check that Kafka gives a producer id, as to every producer that starts; this leaves nothing behind."""
    request = InitProducerIdRequest(
        transactional_id=None, transaction_timeout_ms=1000, producer_id=-1, producer_epoch=-1
    )

    code = retry_until_ready(lambda: request_producer_id(admin, request))
    if code == errors.ClusterAuthorizationFailedError.errno:
        remedy = (
            f"grant {principal} IDEMPOTENT_WRITE on the cluster; since Kafka 2.8 WRITE on a topic is enough"
        )
        return failed("log idempotence", f"{principal} may not write idempotently", remedy)
    if code:
        return failed(
            "log idempotence",
            f"Kafka gives no producer id: {errors.for_code(code).__name__}",
            "look at the brokers' logs",
        )
    return ok("log idempotence", f"{principal} may write idempotently")


def request_producer_id(admin: Any, request: InitProducerIdRequest) -> int:
    """Return the error code of a broker's answer, 0 for none. Raises RetriableError, KafkaError."""
    code: int = admin._manager.run(admin._manager.send, request).error_code  # noqa: SLF001 - kafka-python has no other way
    if code in _LOADING:
        raise errors.CoordinatorLoadInProgressError
    return code


def _check_group(admin: Any, principal: str, group: str) -> Finding:
    try:
        _probe_group(admin, group)
    except errors.GroupAuthorizationFailedError:
        return failed(
            "log group",
            f"{principal} may not use the consumer group {group}",
            f"grant {principal} READ on group {group}",
        )
    return ok("log group", f"{principal} may use the consumer group {group}")


def _probe_group(admin: Any, group: str) -> None:
    """Remove a member that the group never had, which needs the right to join. Raises KafkaError."""
    stranger = [MemberToRemove(member_id=f"ingest-check-{uuid.uuid4()}")]

    def remove() -> None:
        try:
            admin.remove_group_members(group, stranger)
        except errors.UnknownMemberIdError:
            return

    retry_until_ready(remove)


def retry_until_ready(request: Callable[[], T]) -> T:
    """Repeat a request while the cluster makes its topic for groups or producers.

    The first such request makes it do so.
    """
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            return request()
        except errors.RetriableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
