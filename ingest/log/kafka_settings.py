"""How to reach Kafka; apart from the Kafka log itself, so that reading settings imports no Kafka client."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

LARGEST_RECORD = 2 * 1024 * 1024
LARGEST_BODY = LARGEST_RECORD - 256 * 1024  # a dead letter keeps a request's head, of 64 KiB at most, as JSON

AS_THE_BROKERS_HAVE_IT = -1  # Kafka's own word for it, since 2.4


def _a_number_of_copies(factor: int) -> int:
    if factor < 1 and factor != AS_THE_BROKERS_HAVE_IT:
        raise ValueError("is to be 1 or more, or -1: as many copies as the brokers make by default")
    return factor


class KafkaSettings(BaseModel):
    """How to talk to the brokers named in `log`, and how topics are made when they are missing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    partitions: int = Field(6, ge=1)
    replication_factor: Annotated[int, AfterValidator(_a_number_of_copies)] = AS_THE_BROKERS_HAVE_IT
