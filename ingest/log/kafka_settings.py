"""Settings of Kafka, apart from the Kafka log, so that no Kafka client is imported with them."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from ingest.files import LocalPath

KAFKA_PORT = 9092  # the default of brokers
LARGEST_RECORD = 2 * 1024 * 1024
LARGEST_BODY = (
    LARGEST_RECORD - 256 * 1024
)  # a dead letter also has the request's head as JSON, of 64 KiB at most

BROKER_DEFAULT = -1  # Kafka's own notation, since 2.4


def _check_replication_factor(factor: int) -> int:
    if factor < 1 and factor != BROKER_DEFAULT:
        raise ValueError("must be 1 or more, or -1 for the brokers' default")
    return factor


class KafkaSettings(BaseModel):
    """Kafka: how to reach the brokers named in `log`, and how missing topics are created."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`."
    )
    ssl_cafile: LocalPath | None = Field(
        None, description="File with the certificates of the authorities that sign the brokers' certificates."
    )
    ssl_certfile: LocalPath | None = Field(None, description="File with the client's certificate.")
    ssl_keyfile: LocalPath | None = Field(None, description="File with the client's private key.")
    sasl_mechanism: str | None = Field(None, description="`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.")
    sasl_username: str | None = Field(None, description="SASL user.")
    sasl_password: SecretStr | None = Field(None, description="SASL password.")
    partitions: int = Field(6, ge=1, description="Partitions of a topic that has to be created.")
    replication_factor: Annotated[int, AfterValidator(_check_replication_factor)] = Field(
        BROKER_DEFAULT,
        description="Replicas of a topic that has to be created. `-1` uses the brokers'"
        " `default.replication.factor` and"
        " `min.insync.replicas` (Kafka 2.4 or newer). With `3` or more, topics get `min.insync.replicas=2`: a"
        " delivery is acknowledged when"
        " two brokers have it, and one broker may be down.",
    )
