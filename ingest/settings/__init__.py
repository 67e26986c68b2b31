"""Settings: one frozen value, read from `ingest.toml`, a secrets file, mounted secret files and the environment."""

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo

from ingest.duration import Duration
from ingest.errors import ConfigurationError
from ingest.log.kafka_settings import LARGEST_BODY, KafkaSettings
from ingest.vendors import Account, AnyVendor, load_vendor, vendor_names


def _named(raw: object) -> object:
    """An account knows its own name; what is not a table is left for pydantic to refuse."""
    if not isinstance(raw, dict):
        return raw
    return {name: {**table, "name": name} if isinstance(table, dict) else table for name, table in raw.items()}


def _by_vendor(raw: object) -> object:
    return account_model(raw).model_validate(raw) if isinstance(raw, dict) else raw


def _not_reserved(dataset: str) -> str:
    if dataset in {"temp", "system", "information_schema", "pg_catalog"}:
        raise ValueError("databases keep this name for themselves; choose another")
    return dataset


def _room_for_bodies(limit: int, info: ValidationInfo) -> int:
    """An account gets as much as it leaves free: half, and no body can be larger than that."""
    least = 2 * info.data.get("body_limit", 0)
    if limit < least:
        raise ValueError(
            "is less than twice receiver.body_limit, so that the largest bodies would never be taken:"
            f" raise receiver.in_flight_limit to {least} at least, or lower receiver.body_limit"
        )
    return limit


def _room_for_a_body(log: str, info: ValidationInfo) -> str:
    """Kafka would refuse larger ones for ever, however often they are delivered."""
    receiver = info.data.get("receiver")
    if log.startswith("kafka://") and receiver and receiver.body_limit > LARGEST_BODY:
        raise ValueError(f"Kafka's topics take no larger body than {LARGEST_BODY} bytes: lower receiver.body_limit")
    return log


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReceiverSettings(_Section):
    """The two listeners and how much they take on.

    `append_timeout` is how long a delivery may wait for the log; Bookeo gives up after 5 seconds. `head_timeout` is how
    long a connection may take to bring a request's head, the first one's as the next one's, and `body_timeout` how long a body may.
    `keep_alive` is how long a connection may be idle between two requests. It must be longer than any proxy in front keeps an idle
    connection, or a delivery may be sent on one that is just being closed: nginx and AWS load balancers keep it for 60 s, Traefik for 90 s,
    Caddy for 120 s.
    `connection_limit` and, in bytes, `in_flight_limit` bound what is under way in one worker; an account may have as much as it leaves free, and beyond
    that its deliveries are answered 503: so `in_flight_limit` is to be at least twice `body_limit`.
    `spool_dir` is where a worker keeps what Kafka has not acknowledged within `spool_after`, up to `spool_limit` bytes each: it is to be kept, and to be shared
    with no receiver of other settings.
    """

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    admin_host: str = "127.0.0.1"
    admin_port: int = Field(8081, ge=0, le=65535)
    admin_token: SecretStr | None = None
    workers: int = Field(1, ge=1, le=64)
    body_limit: int = Field(1024 * 1024, ge=1024)
    append_timeout: Duration = timedelta(seconds=4)
    head_timeout: Duration = timedelta(seconds=5)
    keep_alive: Duration = timedelta(seconds=130)
    body_timeout: Duration = timedelta(seconds=10)
    in_flight_limit: Annotated[int, AfterValidator(_room_for_bodies)] = Field(32 * 1024 * 1024, ge=1024, validate_default=True)
    connection_limit: int = Field(1000, ge=1)
    spool_dir: str = "data/spool"
    spool_limit: int = Field(4 * 1024**3, ge=1024 * 1024)
    spool_after: Duration = timedelta(seconds=1)


class ConsumerSettings(_Section):
    """How records become loads. A batch closes at `max_records`, `max_bytes`, or when its oldest record waited `linger`.

    Where several consumers load into one warehouse, each needs an `instance` name of its own. `dead_letter_limit`: so
    many bad records in a row stop the consumer, and ask for a look; so do more than half of the last ten times as many.
    """

    group: str = Field("ingest", pattern=r"^[A-Za-z0-9_-]+$")
    instance: str = Field("", pattern=r"^([a-z0-9]+(_[a-z0-9]+)*)?$")
    max_records: int = Field(5000, ge=1)
    max_bytes: int = Field(32 * 1024 * 1024, ge=1024)
    linger: Duration = timedelta(milliseconds=250)
    dead_letter_limit: int = Field(100, ge=1)
    admin_host: str = "127.0.0.1"
    admin_port: int = Field(8082, ge=0, le=65535)
    admin_token: SecretStr | None = None


class WarehouseSettings(_Section):
    """Any dlt destination. `credentials` goes to dlt as it is, to PostgreSQL with keepalives added; with a password in it, give it by the environment.

    Left out, they are a file `data/warehouse.duckdb` for DuckDB; for others dlt looks for them in its own places. `work_dir` holds dlt's working folder, which is scratch: everything in it can be rebuilt from the log.
    """

    destination: str = "duckdb"
    credentials: SecretStr | None = None
    dataset: Annotated[str, AfterValidator(_not_reserved)] = Field("ingest", pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")
    work_dir: str = "data/dlt"

    @property
    def duckdb_file(self) -> Path | None:
        """The database file; None for another destination, and for DuckDB in memory or at a service."""
        if self.destination != "duckdb":
            return None
        given = self.credentials.get_secret_value() if self.credentials else "data/warehouse.duckdb"
        return None if given.startswith((":", "md:")) else Path(given.removeprefix("duckdb:///"))


class ReconcileSettings(_Section):
    """How often the vendors' REST sides are compared with the warehouse, and how far back.

    `lag`: how far a vendor's REST side may be behind its own webhooks; a row younger than that is not doubted. `patience`: how
    long one request is tried again while a vendor fails. `state_dir` remembers how far a run came, and keeps tokens that
    renew themselves: it is to be kept.
    """

    every: Duration = timedelta(hours=1)
    lookback: Duration = timedelta(days=2)
    jitter: Duration = timedelta(minutes=5)
    lag: Duration = timedelta(minutes=1)
    patience: Duration = timedelta(minutes=1)
    state_dir: str = "data/reconcile"
    admin_host: str = "127.0.0.1"
    admin_port: int = Field(8083, ge=0, le=65535)
    admin_token: SecretStr | None = None


class WebhooksSettings(_Section):
    """How often the vendors' subscriptions are looked at, and whether what is wrong is put right with nobody looking (`repair`).

    `timeout`: how long a vendor may take to answer what creates a subscription.
    """

    every: Duration = timedelta(hours=1)
    repair: bool = False
    timeout: Duration = timedelta(seconds=30)


NO_ACCOUNT = "no account is configured: `ingest init` writes an example of each vendor's, and --config names settings that are elsewhere"


class Settings(_Section):
    """Everything a process needs to know. Paths are relative to the folder the process was started in."""

    receiver: ReceiverSettings = ReceiverSettings()  # first, because whether a log can be used depends on it
    # Both are shown and logged, so neither may have a user and a password in it.
    public_url: str = Field("http://127.0.0.1:8080", pattern=r"^https?://[^/?#@]+(/[^?#]*)?$")
    log: Annotated[str, AfterValidator(_room_for_a_body)] = Field("sqlite:///data/log.db", pattern=r"^(sqlite:///.+|kafka://[^@]+)$")
    log_retention: Duration = timedelta(days=14)
    topic_prefix: str = Field("bookings", pattern=r"^[A-Za-z0-9_-]+$")
    consumer: ConsumerSettings = ConsumerSettings()
    warehouse: WarehouseSettings = WarehouseSettings()
    reconcile: ReconcileSettings = ReconcileSettings()
    webhooks: WebhooksSettings = WebhooksSettings()
    kafka: KafkaSettings = KafkaSettings()
    accounts: Annotated[dict[str, Annotated[Account, BeforeValidator(_by_vendor)]], BeforeValidator(_named)] = Field(default_factory=dict)

    def vendors(self) -> dict[tuple[str, str], AnyVendor]:
        """Every account ready for use, by (vendor, account)."""
        return {(account.vendor, name): load_vendor(account.vendor)(account, self.public_url) for name, account in self.accounts.items()}

    def chosen(self, named: Iterable[str]) -> list[AnyVendor]:
        """The accounts named, or all. Raises ConfigurationError for one that is not here."""
        names = list(named)
        if unknown := [name for name in names if name not in self.accounts]:
            known = ", ".join(sorted(self.accounts)) or "none"
            raise ConfigurationError(f"no account is called {unknown[0]}; the settings have {known}")
        return [vendor for (_, name), vendor in self.vendors().items() if not names or name in names]

    def topic(self, vendor: str) -> str:
        """Where a vendor's events go."""
        return f"{self.topic_prefix}.{vendor}"

    @property
    def dead_letter_topic(self) -> str:
        """Where what could not be read goes."""
        return f"{self.topic_prefix}.dead-letters"

    @property
    def audit_topic(self) -> str:
        """Where reconciliation tells how its runs ended."""
        return f"{self.topic_prefix}.audit"

    def topics(self) -> list[str]:
        """All that a consumer reads: every known vendor's, so that what is in the log outlives an account's settings."""
        return [*map(self.topic, vendor_names()), self.dead_letter_topic, self.audit_topic]


def account_model(table: dict[str, Any]) -> type[Account]:
    """The vendor's own account model; the common one where no vendor is named. Raises ConfigurationError."""
    vendor = table.get("vendor")
    return load_vendor(vendor).Account if isinstance(vendor, str) else Account
