"""Tests of rows that are loaded through a bucket: their files, and what the destination is told to copy.

No emulator copies from a bucket, so statements are made without a connection. What they have to look like:
https://docs.snowflake.com/en/sql-reference/sql/copy-into-table,
https://docs.databricks.com/aws/en/sql/language-manual/delta-copy-into
"""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dlt
import pyarrow.parquet as pq
import pytest
from dlt.destinations.impl.databricks.sql_client import DatabricksSqlClient
from dlt.destinations.impl.snowflake.sql_client import SnowflakeSqlClient
from dlt.destinations.job_impl import ReferenceFollowupJobRequest

from consumers.rows import arrow_table, event_row
from consumers.warehouse.tables import Tables
from ingest.errors import ConfigurationError
from ingest.settings import Settings
from ingest.warehouse.destination import destination, staging_bucket
from tests.consumers.samples import sample
from tests.destinations.google import service_account

_TABLE = "booking_events"
_CREDENTIALS = {"snowflake": "snowflake://any:any@account/database"}
_DATABRICKS = {
    "DATABRICKS__CREDENTIALS__SERVER_HOSTNAME": "h",
    "DATABRICKS__CREDENTIALS__HTTP_PATH": "/p",
    "DATABRICKS__CREDENTIALS__ACCESS_TOKEN": "any",
    "DATABRICKS__CREDENTIALS__CATALOG": "c",
}
_BIGQUERY = {
    "BIGQUERY__CREDENTIALS__PROJECT_ID": "p",
    "BIGQUERY__CREDENTIALS__CLIENT_EMAIL": "a@example.com",
    "BIGQUERY__CREDENTIALS__PRIVATE_KEY": "any",
}


class _Loading(Exception):
    """Stops a load when its files are made."""


class _Staged:
    """The loads of one event, by buckets: each makes a file, and a job that copies it.

    `executed` are the statements of these jobs, with one blank for each white space.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.executed: list[str] = []
        self._folder, self._patch = folder, patch
        for sql_client in (SnowflakeSqlClient, DatabricksSqlClient):
            patch.setattr(
                sql_client, "execute_sql", lambda _, sql: self.executed.append(" ".join(sql.split()))
            )
            patch.setattr(sql_client, "begin_transaction", nullcontext)

    def load(self, name: str, bucket: str, environ: Mapping[str, str]) -> tuple[Any, Path]:
        """Make the file of a load of one event; return the job that copies it, and its path."""
        google = service_account("p", "http://127.0.0.1/no-token")
        keys = {
            "s3": {
                "AWS_ACCESS_KEY_ID": "id",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_SESSION_TOKEN": "token",
            },
            "az": {"AZURE_STORAGE_ACCOUNT_NAME": "store", "AZURE_STORAGE_SAS_TOKEN": "sv=signature"},
            "gs": {name: google[name.lower()] for name in ("PROJECT_ID", "CLIENT_EMAIL", "PRIVATE_KEY")},
        }
        of_bucket = keys[bucket.partition(":")[0]].items()
        variables = {**environ, **{f"FILESYSTEM__CREDENTIALS__{key}": value for key, value in of_bucket}}
        for key, value in variables.items():
            self._patch.setenv(f"DESTINATION__{key}", value)
        warehouse = {"destination": name, "staging": bucket, "credentials": _CREDENTIALS.get(name)}
        settings = Settings.model_validate({"warehouse": warehouse})
        pipeline = dlt.pipeline(
            "ingest",
            pipelines_dir=str(self._folder),
            destination=destination(settings, "second"),
            staging=staging_bucket(settings, "second"),
            dataset_name="bookings",
        )
        tables = Tables(pipeline, self._folder / "ingest", settings.warehouse.kind)
        row = event_row(sample(1, note="it's a text"), "any/0/0", datetime.now(UTC))

        def stop() -> None:
            raise _Loading

        self._patch.setattr(pipeline, "load", stop)
        with pytest.raises(_Loading):
            tables._load({_TABLE: arrow_table(_TABLE, [row])}, {_TABLE: "append"})
        [load_id] = pipeline.list_normalized_load_packages()
        [file] = [
            Path(job.file_path)
            for job in pipeline.get_load_package_info(load_id).jobs["new_jobs"]
            if job.job_file_info.table_name == _TABLE
        ]
        client: Any = pipeline.destination_client()
        reference = ReferenceFollowupJobRequest(file.name, [f"{bucket}/ingest_second/{file.name}"])
        table = client.prepare_load_table(_TABLE)
        job = client.create_load_job(table, reference.new_file_path(), load_id)
        job.set_run_vars(load_id, client.schema, table)
        job._job_client = client
        return job, file


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Staged:
    return _Staged(tmp_path, monkeypatch)


def _note(file: Path) -> str:
    """Return the text in the event's payload, where the payload is an object."""
    [line] = file.read_text(encoding="utf-8").splitlines()
    return str(json.loads(line)["data"]["data"]["note"])


@pytest.mark.parametrize(
    ("bucket", "environ", "expected"),
    [
        (
            "s3://lake/staged",
            {},
            [
                "FROM 's3://lake/staged/ingest_second/booking_events.",
                "CREDENTIALS=(AWS_KEY_ID='id' AWS_SECRET_KEY='secret' AWS_TOKEN='token')",
            ],
        ),
        (
            "az://lake/staged",
            {},
            [
                "FROM 'azure://store.blob.core.windows.net/lake/staged/ingest_second/booking_events.",
                "CREDENTIALS=(AZURE_SAS_TOKEN='?sv=signature')",
            ],
        ),
        (
            "gs://lake/staged",
            {"SNOWFLAKE__STAGE_NAME": "staged_files"},
            ["FROM @staged_files/ingest_second FILES = ('/booking_events."],
        ),
    ],
)
def test_snowflake_copies_lines_of_json(
    bucket: str, environ: Mapping[str, str], expected: list[str], staged: _Staged
) -> None:
    job, file = staged.load("snowflake", bucket, environ)
    job.run()
    [copy] = staged.executed
    assert copy.startswith('COPY INTO "BOOKINGS"."BOOKING_EVENTS"')
    assert "TYPE = 'JSON'" in copy
    assert [part for part in expected if part not in copy] == [], copy
    assert _note(file) == "it's a text"


@pytest.mark.parametrize(
    ("bucket", "environ", "expected"),
    [
        (
            "s3://lake/staged",
            {},
            [
                "FROM 's3://lake/staged/ingest_second/booking_events.",
                "AWS_ACCESS_KEY='id', AWS_SECRET_KEY='secret', AWS_SESSION_TOKEN='token'",
            ],
        ),
        (
            "az://lake/staged",
            {},
            [
                "FROM 'abfss://lake@store.dfs.core.windows.net/staged/ingest_second/booking_events.",
                "WITH(CREDENTIAL(AZURE_SAS_TOKEN='sv=signature'))",
            ],
        ),
        (
            "gs://lake/staged",
            {"DATABRICKS__STAGING_CREDENTIALS_NAME": "staged_files"},
            ["FROM 'gs://lake/staged/ingest_second/booking_events.", "WITH(CREDENTIAL staged_files )"],
        ),
    ],
)
def test_databricks_copies_parquet_with_json_as_text(
    bucket: str, environ: Mapping[str, str], expected: list[str], staged: _Staged
) -> None:
    job, file = staged.load("databricks", bucket, {**_DATABRICKS, **environ})
    job.run()
    [copy] = staged.executed
    assert copy.startswith("COPY INTO `c`.`bookings`.`booking_events`")
    assert "FILEFORMAT = PARQUET" in copy
    assert [part for part in expected if part not in copy] == [], copy
    [data] = map(str, pq.read_table(file)["data"].to_pylist())
    assert json.loads(data)["data"]["note"] == "it's a text"


def test_bigquery_loads_lines_of_json_by_their_url(staged: _Staged) -> None:
    jobs: list[tuple[list[str], str, Any]] = []
    job, file = staged.load("bigquery", "gs://lake/staged", _BIGQUERY)

    def load_table_from_uri(urls: list[str], table: str, *, job_config: Any, **_: Any) -> None:
        jobs.append((urls, table, job_config))

    job._job_client.sql_client._client = SimpleNamespace(load_table_from_uri=load_table_from_uri)
    job._job_client._create_load_job(job._load_table, job._file_path)
    [(urls, table, config)] = jobs
    assert urls == [f"gs://lake/staged/ingest_second/{file.name}"]
    assert table == "p.bookings.booking_events"
    assert (config.source_format, config.autodetect) == ("NEWLINE_DELIMITED_JSON", False)
    assert _note(file) == "it's a text"


@pytest.mark.parametrize(
    ("name", "environ", "remedy"),
    [
        ("snowflake", {}, "set DESTINATION__SNOWFLAKE__STAGE_NAME"),
        ("databricks", _DATABRICKS, "set DESTINATION__DATABRICKS__STAGING_CREDENTIALS_NAME or"),
    ],
)
def test_a_bucket_that_needs_a_name_is_refused_without(
    name: str, environ: Mapping[str, str], remedy: str, staged: _Staged
) -> None:
    with pytest.raises(ConfigurationError, match=remedy):
        staged.load(name, "gs://lake/staged", environ)
