"""The settings of the warehouse."""

from datetime import timedelta
from pathlib import Path

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from ingest.destinations import DUCKDB, POSTGRES, Destination, find_destination
from ingest.files import SETTINGS_FOLDER, LocalPath
from ingest.settings.credentials import DEFAULT_FILE, duckdb_path, usable_catalog, usable_credentials
from ingest.settings.sections import Section
from ingest.times import Duration

_PLAIN_FILES = "rows of plain files cannot be replaced, so every change would be one more row"


class WarehouseSettings(Section):
    """The warehouse: a destination of dlt."""

    destination: str = Field(
        "duckdb",
        description="`duckdb`, `postgres`, `bigquery`, `snowflake`, `redshift`, `databricks`, `filesystem` "
        "or another [dlt destination](https://dlthub.com/docs/dlt-ecosystem/destinations) with "
        "`warehouse.untested`.",
    )
    untested: bool = Field(
        False,
        description="Whether a destination is used that this project does not test. The consumer then tries "
        "it in a scratch dataset whenever it starts, and stops if rows come back wrong.",
    )
    credentials: SecretStr | None = Field(
        None,
        description=f"Credentials as dlt expects them. For DuckDB the path of its file, `{DEFAULT_FILE}` by "
        "default. Credentials with a password are allowed only in the environment or the secrets file. The "
        "password may contain `@`, `:` and `/`, and `%` unless two hexadecimal digits follow.",
    )
    dataset: str = Field(
        "ingest", pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$", description="Dataset or schema of the tables."
    )
    work_dir: LocalPath = Field(
        "data/dlt", description="dlt's working folder. It can be deleted while nothing runs."
    )

    staging: str | None = Field(
        None,
        description="A bucket, or a folder in it, through which rows are loaded into BigQuery (`gs://…`), "
        "Redshift (`s3://…`), Snowflake or Databricks (both, or `az://…`). By default rows need none, and "
        "Redshift cuts payloads of more than 65,535 bytes.",
    )
    table_format: str = Field(
        "delta",
        description="Format of the tables in a folder or bucket, for the destination `filesystem` only: "
        "`delta`, or `iceberg` with a `warehouse.catalog`.",
    )
    catalog: SecretStr | None = Field(
        None,
        validate_default=True,
        description="The catalog of Iceberg tables, which all that write them share: the URL of a REST "
        "catalog, `postgresql+psycopg2://user:password@host/database`, `sqlite:////srv/lake/catalog.db` on a "
        "disk that all of them have, or `glue`. With a password it is allowed only in the environment or the "
        "secrets file.",
    )
    compact_every: Duration = Field(
        timedelta(days=1),
        description="How often a consumer makes large files of many small ones in a folder or bucket, and "
        "deletes those that were replaced more than a day ago.",
    )
    views: bool = Field(
        False,
        description="Whether the consumer also makes [views for analysts](tables.md#views-for-analysts) "
        "beside the tables, in DuckDB and PostgreSQL.",
    )

    @field_validator("views")
    @classmethod
    def _check_views(cls, views: bool, info: ValidationInfo) -> bool:
        if views and find_destination(info.data.get("destination", "")) not in (DUCKDB, POSTGRES):
            raise ValueError(
                "views are made in DuckDB and PostgreSQL only; for other destinations, docs/tables.md says"
                " what each of them has"
            )
        return views

    @field_validator("staging")
    @classmethod
    def _check_staging(cls, url: str | None, info: ValidationInfo) -> str | None:
        destination = find_destination(info.data.get("destination", ""))
        if url and not url.startswith(tuple(f"{scheme}://" for scheme in destination.staging_schemes)):
            schemes = " or ".join(f"{scheme}://…" for scheme in destination.staging_schemes)
            raise ValueError(
                f"is no bucket from which {destination.title} loads: use {schemes}"
                if schemes
                else f"is of no use at {destination.title}, which takes rows without a bucket: leave it out"
            )
        return url.rstrip("/") if url else None

    @field_validator("table_format")
    @classmethod
    def _check_table_format(cls, name: str) -> str:
        if name not in {"delta", "iceberg"}:
            reason = _PLAIN_FILES if name == "parquet" else "it is not known"
            raise ValueError(f'{reason}; set it to "delta" or "iceberg"')
        return name

    @field_validator("catalog")
    @classmethod
    def _check_catalog(cls, catalog: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        """Return the catalog with an absolute path, which Iceberg tables need, and others do not have."""
        text = usable_catalog(catalog.get_secret_value() if catalog else "", info)
        return SecretStr(text) if text else None

    @field_validator("credentials")
    @classmethod
    def _make_usable(cls, credentials: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        """Return credentials as dlt can use them.

        DuckDB's file, or its default, has an absolute path where the folder of relative paths is known.
        """
        text = credentials.get_secret_value() if credentials else ""
        is_duckdb = find_destination(info.data.get("destination", "")) is DUCKDB
        if is_duckdb and not text and SETTINGS_FOLDER in (info.context or {}):
            text = DEFAULT_FILE
        return SecretStr(usable_credentials(text, info)) if text else None

    @field_validator("dataset")
    @classmethod
    def _check_reserved(cls, dataset: str) -> str:
        if dataset in {"temp", "system", "information_schema", "pg_catalog"}:
            raise ValueError("databases reserve this name; choose another")
        return dataset

    @property
    def kind(self) -> Destination:
        """Return what is known of the destination."""
        return find_destination(self.destination)

    @property
    def duckdb_file(self) -> Path | None:
        """Return the database file; None for other destinations, and for DuckDB in memory or at a service."""
        if self.kind is not DUCKDB:
            return None
        path = duckdb_path(self.credentials.get_secret_value() if self.credentials else DEFAULT_FILE)
        return Path(path) if path else None
