"""A broker that grants nobody anything but what a test asked for, and users to try it with."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from pydantic import SecretStr

from ingest.log.kafka_settings import KafkaSettings
from tests.kafka.broker import Broker, fetch

_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_OVERRIDES = """\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
listener.name.secure.plain.sasl.jaas.config={login} required {users};
"""
NAMES = [f"user{number}" for number in range(16)]


class GuardedBroker(Broker):
    """Its plain listener may do all; on the secure one are users without any right."""

    def __init__(self, home: Path) -> None:
        users = " ".join(f'user_{name}="{name}-password"' for name in NAMES)
        super().__init__(fetch(), home, overrides=_OVERRIDES.format(login=_LOGIN, users=users))
        self._free = iter(NAMES)

    def new_user(self) -> str:
        """One that no other test uses."""
        return next(self._free)

    def settings(self, user: str, **other: object) -> KafkaSettings:
        """How that user gets in."""
        settings = KafkaSettings(
            security_protocol="SASL_SSL",
            ssl_cafile=str(self.cafile),
            sasl_mechanism="PLAIN",
            sasl_username=user,
            sasl_password=SecretStr(f"{user}-password"),
            partitions=1,
        )
        return settings.model_copy(update=other)

    def create(self, *topics: str) -> None:
        """Create topics with one partition each."""
        with closing(KafkaAdminClient(bootstrap_servers=self.servers)) as admin:
            admin.create_topics(
                {topic: {"num_partitions": 1, "replication_factor": 1} for topic in topics},
                wait_for_metadata=True,
            )

    def topics(self) -> set[str]:
        """Return the topics of clients, without those of the brokers."""
        with closing(KafkaAdminClient(bootstrap_servers=self.servers)) as admin:
            return {name for name in admin.list_topics() if not name.startswith("__")}

    def grant(self, user: str, kind: str, names: Sequence[str], *operations: str) -> None:
        """Grant operations on resources; `kind` and operations have Kafka's names."""
        acls = [
            ACL(
                f"User:{user}",
                "*",
                ACLOperation[operation],
                ACLPermissionType.ALLOW,
                ResourcePattern(ResourceType[kind], name),
            )
            for name in names
            for operation in operations
        ]
        with closing(KafkaAdminClient(bootstrap_servers=self.servers)) as admin:
            admin.create_acls(acls)
