"""The settings, one frozen value.

They are read from `ingest.toml`, a secrets file, mounted secret files and the environment.
"""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationInfo, field_validator

from ingest.address import WebAddress, parse_address
from ingest.errors import ConfigurationError
from ingest.files import absolute_url, is_local_path
from ingest.log.backend import Log, build_log
from ingest.log.kafka_settings import KAFKA_PORT, LARGEST_BODY, KafkaSettings
from ingest.settings.dashboard import DashboardSettings, FeedSettings
from ingest.settings.sections import (
    CONSUMER_BASE_BYTES,
    RECORD_FACTOR,
    ConsumerSettings,
    ReceiverSettings,
    ReconcileSettings,
    Section,
    WebhooksSettings,
)
from ingest.settings.traces import TracesSettings
from ingest.settings.warehouse import WarehouseSettings
from ingest.times import Duration
from ingest.vendors import AccountSettings, AnyAccount, load_account_class, split_list, vendor_names

_SQLITE, _KAFKA = "sqlite:///", "kafka://"


def _parse_account(table: object) -> object:
    if not isinstance(table, dict):
        return table
    try:
        model = account_model(table)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    return model.model_validate(table)


NO_ACCOUNT = (
    "no account is configured: `ingest init` writes an example of each vendor's, and --config names "
    "settings that are elsewhere"
)
NO_CREDENTIALS = (
    "no account has what its vendor's REST side needs: api_token, api_key and so on; see docs/settings.md"
)


class Settings(Section):
    """All settings of a process. Paths are absolute once `load_settings` has read them."""

    receiver: ReceiverSettings = ReceiverSettings()  # first, because whether a log can be used depends on it
    public_url: WebAddress = Field(
        "http://127.0.0.1:8080",
        description="Address of the receiver for the vendors, without `/webhooks/…`. Some vendors sign it.",
    )
    log: str = Field(
        "sqlite:///data/log.db",
        description="The log: `sqlite:///` and a path, or `kafka://` and brokers separated by commas, with "
        "port 9092 unless one is given.",
    )
    log_retention: Duration = Field(
        timedelta(days=14),
        description="How long the embedded log keeps records that were loaded. Kafka has its own retention.",
    )
    topic_prefix: str = Field(
        "bookings",
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Topics are named `<prefix>.<vendor>`, `<prefix>.dead-letters`, `<prefix>.audit` and "
        "`<prefix>.changes`.",
    )
    consumer: ConsumerSettings = ConsumerSettings()
    warehouse: WarehouseSettings = WarehouseSettings()
    reconcile: ReconcileSettings = ReconcileSettings()
    webhooks: WebhooksSettings = WebhooksSettings()
    feed: FeedSettings = FeedSettings()
    dashboard: DashboardSettings = DashboardSettings()
    traces: TracesSettings = TracesSettings()
    kafka: KafkaSettings = KafkaSettings()
    accounts: dict[str, Annotated[AccountSettings, BeforeValidator(_parse_account)]] = Field(
        default_factory=dict
    )

    @field_validator("accounts", mode="before")
    @classmethod
    def _add_names(cls, tables: object) -> object:
        """Add each account's name to its table. What is no table is left for pydantic to refuse."""
        if not isinstance(tables, dict):
            return tables
        return {
            name: {**table, "name": name} if isinstance(table, dict) else table
            for name, table in tables.items()
        }

    @field_validator("log")
    @classmethod
    def _parse_log(cls, log: str, info: ValidationInfo) -> str:
        """Return the log's URL with an absolute path, or with a port for each broker."""
        url = log.strip()
        if url.startswith(_SQLITE):
            return absolute_url(url, _SQLITE, info)
        if not url.startswith(_KAFKA):
            raise ValueError('write "sqlite:///data/log.db" or "kafka://host:9092,host2:9092"')
        receiver = info.data.get("receiver")
        if receiver and receiver.body_limit > LARGEST_BODY:
            # A larger body would be refused however often it is delivered.
            raise ValueError(
                f"Kafka's topics accept bodies of at most {LARGEST_BODY} bytes: lower receiver.body_limit"
            )
        if "@" in url:  # the log's URL is shown and logged
            raise ValueError(
                "must not contain a user or a password: set kafka.sasl_username and kafka.sasl_password"
            )
        hosts = split_list(url.removeprefix(_KAFKA).rstrip("/"))
        if not hosts:
            raise ValueError('names no broker: write "kafka://host:9092,host2:9092"')
        return _KAFKA + ",".join(str(parse_address(host, KAFKA_PORT)) for host in hosts)

    @field_validator("consumer")
    @classmethod
    def _check_memory(cls, consumer: ConsumerSettings, info: ValidationInfo) -> ConsumerSettings:
        """Check that the consumer can load the largest body that a receiver takes."""
        receiver = info.data.get("receiver")
        least = CONSUMER_BASE_BYTES + RECORD_FACTOR * receiver.body_limit if receiver else 0
        if consumer.memory < least:
            raise ValueError(
                f"memory is too small for the largest bodies: raise consumer.memory to at least {least}, or "
                "lower receiver.body_limit"
            )
        return consumer

    def build_accounts(self) -> dict[tuple[str, str], AnyAccount]:
        """Return all accounts by (vendor, account)."""
        return {
            (settings.vendor, name): load_account_class(settings.vendor)(settings, self.public_url)
            for name, settings in self.accounts.items()
        }

    def choose_accounts(self, chosen: Iterable[str]) -> list[AnyAccount]:
        """Return the accounts with these names, or all without any.

        Raises ConfigurationError for an unknown name.
        """
        names = list(chosen)
        if unknown := [name for name in names if name not in self.accounts]:
            known = ", ".join(sorted(self.accounts)) or "none"
            raise ConfigurationError(f"no account is called {unknown[0]}; the settings have {known}")
        return [account for (_, name), account in self.build_accounts().items() if not names or name in names]

    def build_log(self) -> Log:
        """Return the log that `log` names; nothing is opened yet."""
        return build_log(
            self.log,
            self.kafka,
            self.topics(),
            group=self.consumer.group,
            retention=self.log_retention,
            feed=self.changes_topic,
        )

    @property
    def linger(self) -> timedelta:
        """Return how long a batch waits for more records: as it is set, or as the destination calls for."""
        linger = self.consumer.linger
        return self.warehouse.kind.interval if linger is None else linger

    @property
    def uses_spool(self) -> bool:
        """Return whether receivers keep a spool.

        Kafka may be away, while the embedded log is as near and as durable as a spool.
        """
        return self.build_log().file is None

    def sharing_secrets(self) -> list[tuple[str, ...]]:
        """Return names of accounts that accept each other's deliveries, because they share a webhook secret.

        Accounts of a vendor that signs the URL too do not, such as Bookeo's, of which all in an application
        have the same secret.
        """
        by_secret: dict[str, list[AccountSettings]] = {}
        for settings in self.accounts.values():
            for secret in set(settings.live_secrets()):
                by_secret.setdefault(secret, []).append(settings)
        groups = [
            sharing
            for sharing in by_secret.values()
            if not all(load_account_class(settings.vendor).signs_url for settings in sharing)
        ]
        return sorted(
            {tuple(settings.name for settings in sharing): None for sharing in groups if len(sharing) > 1}
        )

    def topic(self, vendor: str) -> str:
        """Return the topic of a vendor's events."""
        return f"{self.topic_prefix}.{vendor}"

    @property
    def dead_letter_topic(self) -> str:
        """Return the topic of records that could not be read."""
        return f"{self.topic_prefix}.dead-letters"

    @property
    def audit_topic(self) -> str:
        """Return the topic of reconciliation's reports."""
        return f"{self.topic_prefix}.audit"

    @property
    def changes_topic(self) -> str:
        """Return the topic of the feed of changes."""
        return f"{self.topic_prefix}.changes"

    def paths(self) -> dict[str, Path]:
        """Return every file and folder that these settings name, by the setting's name."""
        paths = {name: Path(value) for name, value in _local_paths(self)}
        if self.log.startswith(_SQLITE):
            paths["log"] = Path(self.log.removeprefix(_SQLITE))
        if self.warehouse.duckdb_file:
            paths["warehouse.credentials"] = self.warehouse.duckdb_file
        return paths

    def store_folders(self) -> dict[str, Path]:
        """Return the folder of everything that grows on this machine, by the name of its setting."""
        folders = {
            "reconcile.state_dir": Path(self.reconcile.state_dir),
            "warehouse.work_dir": Path(self.warehouse.work_dir),
        }
        if file := self.build_log().file:
            folders["log"] = file.parent
        else:
            folders["receiver.spool_dir"] = Path(self.receiver.spool_dir)
        if file := self.warehouse.duckdb_file:
            folders["warehouse"] = file.parent
        return folders

    def topics(self) -> list[str]:
        """Return all topics that a consumer reads.

        Those of vendors without an account are among them, because the log may have their records.
        """
        return [*map(self.topic, vendor_names()), self.dead_letter_topic, self.audit_topic]


def _local_paths(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the settings whose type is `LocalPath`, in sections and accounts too, with their values."""
    for name, field in type(section).model_fields.items():
        value, setting = getattr(section, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from _local_paths(value, f"{setting}.")
        elif isinstance(value, dict):
            for key, inner in value.items():
                yield from _local_paths(inner, f"{setting}.{key}.") if isinstance(inner, BaseModel) else ()
        elif value and is_local_path(field):
            yield setting, value


def section_models() -> dict[str, type[BaseModel]]:
    """Return the models of the sections by name, without accounts, whose models depend on their vendors."""
    models = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {
        name: model
        for name, model in models.items()
        if isinstance(model, type) and issubclass(model, BaseModel)
    }


def account_model(table: dict[str, Any]) -> type[AccountSettings]:
    """Return the account model of a table's vendor, or the common one without a vendor.

    Raises ConfigurationError.
    """
    vendor = table.get("vendor")
    return load_account_class(vendor).settings_model if isinstance(vendor, str) else AccountSettings


def nearest_account_model(table: dict[str, Any]) -> type[AccountSettings]:
    """Return the account model of a table's vendor, or the common one for a missing or unknown vendor."""
    return account_model(table) if table.get("vendor") in vendor_names() else AccountSettings


__all__ = [
    "NO_ACCOUNT",
    "NO_CREDENTIALS",
    "ConsumerSettings",
    "DashboardSettings",
    "FeedSettings",
    "KafkaSettings",
    "ReceiverSettings",
    "ReconcileSettings",
    "Settings",
    "TracesSettings",
    "WarehouseSettings",
    "WebhooksSettings",
    "account_model",
    "nearest_account_model",
    "section_models",
]
