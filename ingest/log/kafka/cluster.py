"""What producer and consumer have in common: reaching the brokers, the topics there, and our words for their errors."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

from kafka import KafkaAdminClient, errors
from kafka.net.compat import KafkaNetClient

from ingest.errors import CommitFailed, LogRefused, LogUnavailable
from ingest.log.kafka_settings import LARGEST_RECORD, KafkaSettings

CONNECT_SECONDS = 2.0
_KNOCK_SECONDS = 1.0
_ENOUGH_TO_SPARE_ONE = 3

_NOT_A_MEMBER = (
    errors.CommitFailedError,
    errors.IllegalGenerationError,
    errors.RebalanceInProgressError,
    errors.UnknownMemberIdError,
)
_TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)


class Cluster:
    """The brokers of the settings, and how to talk to them."""

    def __init__(self, servers: list[str], settings: KafkaSettings) -> None:
        self._servers, self._settings = servers, settings

    def open(self, client: Any, **options: Any) -> Any:
        """A client of kafka-python. Where its constructor fails, it leaves a thread and sockets behind: those are closed here."""
        opened: list[Any] = []

        def remember(**configs: Any) -> Any:
            opened.append(KafkaNetClient(**configs))
            return opened[-1]

        try:
            return client(**self._connection(), **options, kafka_client=remember)
        except BaseException:
            for each in opened:
                each.close()
            raise

    def admin(self) -> Any:
        """A KafkaAdminClient, to be closed soon: it would never notice that a group has moved to another broker."""
        self._knock()
        milliseconds = int(CONNECT_SECONDS * 1000)
        return self.open(KafkaAdminClient, request_timeout_ms=milliseconds, bootstrap_timeout_ms=milliseconds)

    def ensure_topics(self, topics: Sequence[str]) -> None:
        """Creates those that are missing. Raises LogUnavailable, KafkaError."""
        with closing(self.admin()) as admin:
            described = admin.describe_topics(list(topics))
            missing = [topic["name"] for topic in described if topic["error_code"] == errors.UnknownTopicOrPartitionError.errno]
            if missing:
                self._create(admin, missing)

    def _knock(self) -> None:
        """Fails at once where kafka-python would try for seconds, leaving a socket open each time."""
        for server in self._servers:
            host, _, port = server.rpartition(":")
            with suppress(OSError, ValueError), socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS):
                return
        raise errors.KafkaConnectionError("no broker accepts a connection")

    def _create(self, admin: Any, topics: list[str]) -> None:
        wanted = {
            "num_partitions": self._settings.partitions,
            "replication_factor": self._settings.replication_factor,
            "configs": self._topic_configs(),
        }
        for topic in admin.create_topics(dict.fromkeys(topics, wanted), raise_errors=False)["topics"]:
            error = errors.for_code(topic["error_code"])
            if error not in (errors.NoError, errors.TopicAlreadyExistsError):
                raise LogUnavailable(
                    f"topic {topic['name']!r} is missing and could not be created: {error.__name__}, {topic['error_message']};"
                    " create it, or correct kafka.partitions and kafka.replication_factor"
                )
        admin.wait_for_topics(topics, timeout_ms=CONNECT_SECONDS * 1000)

    def _topic_configs(self) -> dict[str, str]:
        # With the appender's time, one whose clock is wrong would be refused, or have its records deleted as old.
        configs = {"max.message.bytes": str(LARGEST_RECORD), "message.timestamp.type": "LogAppendTime"}
        if self._settings.replication_factor >= _ENOUGH_TO_SPARE_ONE:
            configs["min.insync.replicas"] = "2"  # Kafka's 1 acknowledges what a single broker has, and that perhaps in memory only
        return configs

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """kafka-python's errors as ours."""
        try:
            yield
        except _NOT_A_MEMBER as error:
            raise CommitFailed(f"the group went on without this consumer; others read its records again ({error})") from error
        except errors.KafkaError as error:
            raise self.unavailable(error) from error

    def unavailable(self, error: Exception) -> LogUnavailable:
        """Names the brokers and what to look at."""
        if isinstance(error, _TOO_LARGE):
            return LogRefused(
                f"Kafka at {','.join(self._servers)} refused a record ({error!r}): raise max.message.bytes of its topic above receiver.body_limit"
            )
        return LogUnavailable(
            f"Kafka at {','.join(self._servers)} failed ({error!r}): see that its brokers run,"
            " and that log and the kafka settings name their address, TLS and SASL"
        )

    def _connection(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "bootstrap_servers": self._servers,
            "client_id": "ingest",
            "reconnect_backoff_max_ms": 1_000,
            "security_protocol": settings.security_protocol,
            "ssl_cafile": settings.ssl_cafile,
            "ssl_certfile": settings.ssl_certfile,
            "ssl_keyfile": settings.ssl_keyfile,
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password.get_secret_value() if settings.sasl_password else None,
        }
