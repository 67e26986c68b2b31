"""The sections of the settings, each a frozen value.

A field's description is what docs/settings.md and the JSON schema say about it.
"""

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
)

from ingest.address import Host
from ingest.files import LocalPath
from ingest.times import Duration
from ingest.vendors.account_settings import as_list


class Section(BaseModel):
    """A table of the settings.

    A default is validated like a given value, so that paths in it become absolute.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _fits_two_bodies(limit: int, info: ValidationInfo) -> int:
    """Check that the largest body fits into half of the limit, which is what one account can use.

    Raises ValueError.
    """
    least = 2 * info.data.get("body_limit", 0)
    if limit < least:
        raise ValueError(
            "is less than twice receiver.body_limit, so the largest bodies would never be accepted:"
            f" raise receiver.in_flight_limit to at least {least}, or lower receiver.body_limit"
        )
    return limit


def _admin_host() -> Any:
    return Field(
        "127.0.0.1", description="Host of the admin listener, which serves `/readyz` and `/metrics`."
    )


def _admin_port(port: int) -> Any:
    return Field(port, ge=0, le=65535, description="Port of the admin listener.")


def _as_identifier(value: Any) -> Any:
    """Write a name with hyphens, such as that of a pod, as a part of a table's name."""
    return value.replace("-", "_") if isinstance(value, str) else value


Hosts = Annotated[tuple[Host, ...], BeforeValidator(as_list)]


def _admin_hosts() -> Any:
    return Field(
        (),
        description="List of further host names under which the admin listener can be reached, for example "
        "by monitoring. `localhost`, IP addresses and `admin_host` are always allowed; requests to other "
        "names are answered 421.",
    )


def _fits_a_header(token: SecretStr | None) -> SecretStr | None:
    if token and not re.fullmatch(r"[!-~]+", token.get_secret_value()):
        raise ValueError(
            "must have ASCII characters only, and no blank, because it is sent in a header: for example "
            "what `openssl rand -hex 32` prints"
        )
    return token


AdminToken = Annotated[SecretStr | None, AfterValidator(_fits_a_header)]


def _admin_token() -> Any:
    return Field(
        None,
        description="Bearer token of the admin listener, in ASCII without blanks. Required when "
        "`admin_host` is not a loopback address.",
    )


def _undone_limit(default: timedelta, delay: str, note: str = "") -> Any:
    return Field(default, description=f"`/readyz` answers 503 when {delay} for longer than this.{note}")


class ReceiverSettings(Section):
    """The receiver: its two listeners, its limits and its spool."""

    host: Host = Field("127.0.0.1", description="Host of the public listener. `::` listens on IPv4 and IPv6.")
    port: int = Field(8080, ge=0, le=65535, description="Port of the public listener.")
    admin_host: Host = _admin_host()
    admin_port: int = _admin_port(8081)
    admin_hosts: Hosts = _admin_hosts()
    admin_token: AdminToken = _admin_token()
    workers: int = Field(1, ge=1, le=64, description="Number of processes that share the public listener.")
    body_limit: int = Field(
        1024 * 1024,
        ge=1024,
        description="Largest body in bytes; larger ones are answered 413. With Kafka at most `1835008`.",
    )
    append_timeout: Duration = Field(
        timedelta(seconds=4),
        description="How long a delivery may wait for the log before it is answered 503. Some vendors "
        "give up after 5 seconds.",
    )
    head_timeout: Duration = Field(
        timedelta(seconds=5),
        description="How long a request's head may take to arrive.",
    )
    keep_alive: Duration = Field(
        timedelta(seconds=130),
        description="How long a connection may be idle between two requests. It must be longer than a proxy "
        "in front keeps one (nginx and AWS load balancers 60 s, Traefik 90 s, Caddy 120 s, Google Cloud "
        "600 s); otherwise a delivery may be sent on a connection that is just being closed. While more "
        "than half of `connection_limit` is in use, the limit is `head_timeout`.",
    )
    body_timeout: Duration = Field(
        timedelta(seconds=10), description="How long a request's body may take to arrive."
    )
    in_flight_limit: Annotated[int, AfterValidator(_fits_two_bodies)] = Field(
        32 * 1024 * 1024,
        ge=1024,
        description="Bytes of bodies that one worker handles at once. One account can use at most half of "
        "this; above it deliveries are answered 503. Bodies that are still arriving can together use half "
        "of this; those that make no progress are dropped first. At least twice `receiver.body_limit`.",
    )
    connection_limit: int = Field(
        1000,
        ge=1,
        description="Connections that one worker handles at once. One account can use at most half of this; "
        "above it deliveries are answered 503. Idle connections are closed for new ones: the longest idle "
        "first, and those that brought a verified delivery last.",
    )
    spool_dir: LocalPath = Field(
        "data/spool",
        description="Folder where workers keep deliveries that Kafka does not acknowledge in time. Keep "
        "this folder, and do not share it between receivers. If you switch to the embedded log, records "
        "waiting here are moved into it at start.",
    )
    spool_after: Duration = Field(
        timedelta(seconds=1),
        description="How long Kafka may take before a delivery goes to the spool. At most half of "
        "`append_timeout`.",
    )
    spool_limit: int = Field(
        4 * 1024**3,
        ge=1024 * 1024,
        description="Bytes that one worker may keep in the spool, without the file's journal. Above it "
        "deliveries are answered 503.",
    )
    undone_limit: Duration = _undone_limit(
        timedelta(days=1), "a record has waited in the spool", " Deliveries are still accepted."
    )


_MIB = 1024 * 1024
# What a consumer takes beside its batch: its libraries, the tables' metadata, and what malloc keeps.
CONSUMER_BASE_BYTES = 320 * _MIB
# How many times the size of a batch its load may take: half of it in DuckDB, half in this process, as copies
# and as parsed JSON.
BATCH_FACTOR = 64
# How many times the size of a record alone: a list of small numbers takes DuckDB 34 times its size.
RECORD_FACTOR = 96


class ConsumerSettings(Section):
    """The consumer: its group, when a batch is loaded, and how much memory that may take."""

    group: str = Field(
        "ingest",
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Consumer group. A new name reads the log from its beginning. The embedded log keeps "
        "what the old group has not read.",
    )
    instance: Annotated[str, BeforeValidator(_as_identifier)] = Field(
        "",
        pattern=r"^([a-z0-9]+(_[a-z0-9]+)*)?$",
        description="Name of this consumer: lower-case letters, digits, and `_` or `-`, which mean the same. "
        "If several consumers load into one warehouse, each needs a different name.",
    )
    max_records: int = Field(5000, ge=1, description="A batch is loaded when it has this many records.")
    max_bytes: int = Field(
        8 * _MIB,
        ge=1024,
        description="A batch is loaded when it has this many bytes, or as many as `consumer.memory` has "
        "room for.",
    )
    memory: int = Field(
        832 * _MIB,
        ge=448 * _MIB,
        description="Bytes of memory that the consumer may take in total, whatever the bodies are like. It "
        "limits what is read from the log at once, the size of a batch, and DuckDB. At least 448 MiB, and "
        "320 MiB more than 96 times `receiver.body_limit`.",
    )
    linger: Duration | None = Field(
        None,
        description="A batch that is not full is loaded when its oldest record was received this long ago, "
        "and the load before it began this long ago. The default is the destination's "
        "(docs/destinations.md): `300ms` at DuckDB and PostgreSQL, `60s` or more where loads are limited or "
        "billed.",
    )
    dead_letter_limit: int = Field(
        100,
        ge=1,
        description="The consumer stops after this many bad records in a row, or when more than half of the "
        "last 10 times this many were bad.",
    )
    undone_limit: Duration = _undone_limit(
        timedelta(seconds=30), "records that were read from the log have not been loaded"
    )
    admin_host: Host = _admin_host()
    admin_port: int = _admin_port(8082)
    admin_hosts: Hosts = _admin_hosts()
    admin_token: AdminToken = _admin_token()

    @property
    def batch_bytes(self) -> int:
        """Return the size at which a batch is loaded; its last record may exceed it."""
        return min(self.max_bytes, (self.memory - CONSUMER_BASE_BYTES) // BATCH_FACTOR)

    @property
    def duckdb_bytes(self) -> int:
        """Return the part of `memory` that DuckDB may use."""
        return (self.memory - CONSUMER_BASE_BYTES) // 2


class ReconcileSettings(Section):
    """Reconciliation: how often the vendors' REST APIs are compared with the warehouse, and how far back."""

    every: Duration = Field(
        timedelta(hours=1), description="How often `ingest up` and `ingest reconcile --watch` compare."
    )
    jitter: Duration = Field(
        timedelta(minutes=5), description="Longest random delay that is added to `every`."
    )
    lookback: Duration = Field(
        timedelta(days=2),
        description="How far back each run looks. After failed or missing runs it looks back to the last "
        "good one.",
    )
    lag: Duration = Field(
        timedelta(minutes=1),
        description="How far a vendor's REST API may be behind its webhooks. A row that is younger than this "
        "is replaced only by a newer version.",
    )
    patience: Duration = Field(
        timedelta(minutes=1), description="How long one request is retried while a vendor fails."
    )
    state_dir: LocalPath = Field(
        "data/reconcile",
        description="Folder for the progress of runs, what is known about each account's key and API and "
        "about this machine's clock, and renewed OAuth tokens. Keep this folder.",
    )
    undone_limit: Duration = _undone_limit(
        timedelta(minutes=10),
        "records in the log, repairs included, have not been loaded",
        " The time between two loads (`consumer.linger`) is added.",
    )
    admin_host: Host = _admin_host()
    admin_port: int = _admin_port(8083)
    admin_hosts: Hosts = _admin_hosts()
    admin_token: AdminToken = _admin_token()


class WebhooksSettings(Section):
    """The vendors' webhook subscriptions."""

    every: Duration = Field(
        timedelta(hours=1),
        description="How often `ingest up` and `ingest reconcile --watch` check the vendors' subscriptions.",
    )
    repair: bool = Field(False, description="Whether that check also repairs them without asking.")
    timeout: Duration = Field(
        timedelta(seconds=30),
        description="How long a vendor may take to answer a request that creates a subscription.",
    )
