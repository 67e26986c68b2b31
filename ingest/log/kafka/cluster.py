"""The Kafka cluster of the settings: connections, topics and errors."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from kafka import KafkaAdminClient, errors
from kafka.net.compat import KafkaNetClient

from ingest.errors import CommitFailed, LogDenied, LogRefused, LogUnavailable
from ingest.log.kafka.handshake import handshake, tls_context
from ingest.log.kafka_settings import LARGEST_RECORD, KafkaSettings

if TYPE_CHECKING:
    from confluent_kafka import KafkaError as LibrdkafkaError

CONNECT_SECONDS = 2.0
_REPLICAS_TO_SPARE_ONE = 3

_NOT_A_MEMBER = (
    errors.CommitFailedError,
    errors.IllegalGenerationError,
    errors.RebalanceInProgressError,
    errors.UnknownMemberIdError,
)
# Errors of an authorizer: what they mean, and what to grant.
# https://kafka.apache.org/documentation/#security_authz
_NOT_ALLOWED = {
    errors.TopicAuthorizationFailedError: (
        "a right to a topic is missing: grant READ and WRITE on the topics of topic_prefix"
    ),
    errors.GroupAuthorizationFailedError: (
        "the right to the consumer group is missing: grant READ on the group consumer.group"
    ),
    errors.ClusterAuthorizationFailedError: (
        "a right to the cluster is missing: grant IDEMPOTENT_WRITE on the cluster,"
        " and CREATE if topics are to be made"
    ),
}
_TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)

# Of the records of a key, the newest is kept for ever.
COMPACTED = {"cleanup.policy": "compact"}

_EXISTING = (errors.NoError, errors.TopicAlreadyExistsError)


class Cluster:
    """The brokers of the settings, and how to connect to them."""

    def __init__(self, servers: list[str], settings: KafkaSettings) -> None:
        self._servers, self._settings = servers, settings

    @property
    def address(self) -> str:
        """Return the names of the brokers, for messages."""
        return ", ".join(self._servers)

    @property
    def principal(self) -> str:
        """Return whom rights are granted to, as far as it is known here."""
        name = self._settings.sasl_username
        return (
            f"User:{name}" if name and self._settings.security_protocol.startswith("SASL_") else "this client"
        )

    def open(self, client: Any, **options: Any) -> Any:
        """Make a client of kafka-python.

        When its constructor fails, the thread and the sockets that it leaves behind are closed.
        """
        settings, password = self._settings, self._settings.sasl_password
        opened: list[Any] = []

        def remember(**configs: Any) -> Any:
            opened.append(KafkaNetClient(**configs))
            return opened[-1]

        try:
            return client(
                bootstrap_servers=self._servers,
                client_id="ingest",
                reconnect_backoff_max_ms=1_000,
                security_protocol=settings.security_protocol,
                ssl_context=tls_context(settings),
                sasl_mechanism=settings.sasl_mechanism,
                sasl_plain_username=settings.sasl_username,
                sasl_plain_password=password.get_secret_value() if password else None,
                kafka_client=remember,
                **options,
            )
        except BaseException:
            for connection in opened:
                connection.close()
            raise

    def admin(self) -> Any:
        """Make a KafkaAdminClient. Close it soon: it never notices that a group has moved to another broker.

        Raises LogUnavailable, at once when no broker can be reached or all refuse the login, and KafkaError.
        """
        handshake(self._servers, self._settings)
        milliseconds = int(CONNECT_SECONDS * 1000)
        return self.open(KafkaAdminClient, request_timeout_ms=milliseconds, bootstrap_timeout_ms=milliseconds)

    def ensure_topics(self, topics: Sequence[str], configs: Mapping[str, str] | None = None) -> None:
        """Create the topics that are missing, with further `configs`. Raises LogUnavailable, KafkaError."""
        with closing(self.admin()) as admin:
            descriptions = admin.describe_topics(list(topics))
            missing = [
                topic["name"]
                for topic in descriptions
                if topic["error_code"] == errors.UnknownTopicOrPartitionError.errno
            ]
            if not missing:
                return
            answers = admin.create_topics(
                dict.fromkeys(missing, self._new_topic(configs)), raise_errors=False
            )
            for topic in answers["topics"]:
                if errors.for_code(topic["error_code"]) not in _EXISTING:
                    raise LogUnavailable(
                        f"topic {topic['name']!r} is missing and could not be created:"
                        f" {_explain_refusal(topic)}"
                    )
            admin.wait_for_topics(missing, timeout_ms=CONNECT_SECONDS * 1000)

    def refusals(self, admin: Any, topics: Sequence[str]) -> dict[str, str]:
        """Return why topics could not be created now, and create nothing. Raises KafkaError."""
        answers = admin.create_topics(
            dict.fromkeys(topics, self._new_topic()), raise_errors=False, validate_only=True
        )["topics"]
        return {
            answer["name"]: _explain_refusal(answer)
            for answer in answers
            if errors.for_code(answer["error_code"]) not in _EXISTING
        }

    def _new_topic(self, further: Mapping[str, str] | None = None) -> dict[str, Any]:
        # With the appender's time, one whose clock is wrong would be refused, or have its records deleted as
        # old.
        configs = {
            "max.message.bytes": str(LARGEST_RECORD),
            "message.timestamp.type": "LogAppendTime",
            **(further or {}),
        }
        if self._settings.replication_factor >= _REPLICAS_TO_SPARE_ONE:
            configs["min.insync.replicas"] = (
                "2"  # Kafka's 1 acknowledges what a single broker has, and that perhaps in memory only
            )
        return {
            "num_partitions": self._settings.partitions,
            "replication_factor": self._settings.replication_factor,
            "configs": configs,
        }

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Raise the errors of this project for those of kafka-python."""
        try:
            yield
        except _NOT_A_MEMBER as error:
            raise CommitFailed(
                f"the group continued without this consumer; others read its records again ({error})"
            ) from error
        except errors.KafkaError as error:
            raise self.unavailable(error) from error

    def unavailable(self, error: Exception) -> LogUnavailable:
        """Return the error that names the brokers and what to look at."""
        if isinstance(error, _TOO_LARGE):
            return LogRefused(
                f"Kafka at {','.join(self._servers)} refused a record ({error!r}): raise max.message.bytes of"
                " its topic above receiver.body_limit"
            )
        if meaning := _NOT_ALLOWED.get(type(error)):
            return LogDenied(f"Kafka at {','.join(self._servers)}: {meaning} (`ingest check` says which)")
        return LogUnavailable(
            f"Kafka at {','.join(self._servers)} failed ({error!r}): see that its brokers run,"
            " and that log and the kafka settings name their address, TLS and SASL"
        )

    def unavailable_to_librdkafka(self, error: "LibrdkafkaError") -> LogUnavailable:
        """Return what `unavailable` does, for an error of librdkafka: its own have codes below 0."""
        kind = errors.for_code(error.code()) if error.code() > 0 else errors.KafkaError
        return self.unavailable(kind(error.str()))

    def librdkafka_options(self) -> dict[str, Any]:
        """Return how a client of librdkafka connects. Raises LogDenied for files that cannot be used.

        https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md
        """
        settings = self._settings
        tls_context(settings)  # for its messages: librdkafka reads the files itself
        password = settings.sasl_password
        options = {
            "bootstrap.servers": ",".join(self._servers),
            "client.id": "ingest",
            "security.protocol": settings.security_protocol,
            "ssl.ca.location": settings.ssl_cafile,
            "ssl.certificate.location": settings.ssl_certfile,
            "ssl.key.location": settings.ssl_keyfile or settings.ssl_certfile,
            "sasl.mechanism": settings.sasl_mechanism,
            "sasl.username": settings.sasl_username,
            "sasl.password": password.get_secret_value() if password else None,
        }
        return {name: value for name, value in options.items() if value is not None}


def _explain_refusal(answer: Mapping[str, Any]) -> str:
    error = errors.for_code(answer["error_code"])
    if error in (errors.TopicAuthorizationFailedError, errors.ClusterAuthorizationFailedError):
        return "the right is missing; create it, or grant CREATE on the cluster"
    reason = f"{error.__name__}, {answer['error_message']}"
    return f"{reason}; create it, or correct kafka.partitions and kafka.replication_factor"
