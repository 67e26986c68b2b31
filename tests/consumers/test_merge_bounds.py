"""Tests of what merges read of a table, by the statements that dlt makes for each destination."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.destinations.job_client_impl import SqlLoadJob
from dlt.destinations.sql_client import SqlClientBase

from consumers.booking_rows import Row
from consumers.message import BookingMessage
from consumers.rows import TABLES_BY_NAME, arrow_table, event_row
from consumers.warehouse.merge_bounds import MergeBounds
from consumers.warehouse.tables import _merge, resource_of
from ingest.booking import Booking, BookingStatus
from ingest.settings import Settings
from ingest.warehouse.destination import destination
from tests.consumers.samples import moment, sample

_CREDENTIALS = {
    "redshift": "postgresql://any:any@host/database",
    "snowflake": "snowflake://any:any@account/database",
}
_ENVIRON = {
    "DATABRICKS": {"SERVER_HOSTNAME": "h", "HTTP_PATH": "/p", "ACCESS_TOKEN": "any", "CATALOG": "c"},
    "BIGQUERY": {"PROJECT_ID": "p", "CLIENT_EMAIL": "a@example.com", "PRIVATE_KEY": "any"},
}


def _statements(name: str, folder: Path, rows: dict[str, list[Row]]) -> tuple[dict[str, str], list[str]]:
    """Return the statements that make tables, and those that merge rows, without a connection."""
    executed: list[str] = []
    warehouse = {"destination": name, "credentials": _CREDENTIALS.get(name)}
    settings = Settings.model_validate({"warehouse": warehouse})
    kind = settings.warehouse.kind
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqlClientBase, "execute_many", lambda _, statements: executed.extend(statements))
        for section, values in _ENVIRON.items():
            for key, value in values.items():
                patch.setenv(f"DESTINATION__{section}__CREDENTIALS__{key}", value)
        made = destination(settings)
        bounds = MergeBounds(kind.merge_times)
        bounds.apply_to(made)
        tables = {table: arrow_table(table, of_table) for table, of_table in rows.items()}
        bounds.set_rows(tables)
        pipeline = dlt.pipeline("any", pipelines_dir=str(folder), destination=made, dataset_name="ingest")
        merges: dict[str, Any] = {table: _merge(TABLES_BY_NAME[table], pipeline, kind) for table in tables}
        pipeline.extract(
            [
                resource_of(TABLES_BY_NAME[table], of_table, kind).apply_hints(
                    write_disposition=merges[table]
                )
                for table, of_table in tables.items()
            ]
        )
        pipeline.normalize()
        client: Any = pipeline.destination_client()
        prepared = {table: client.prepare_load_table(table) for table in rows}
        creations = {
            table: client._get_table_update_sql(table, list(schema["columns"].values()), False)[0]
            for table, schema in prepared.items()
        }
        for schema in prepared.values():
            [job] = client._create_merge_followup_jobs([schema])
            fragments = SqlLoadJob(job.new_file_path())._split_fragments(
                Path(job.new_file_path()).read_text()
            )
            client.sql_client.execute_many(fragments)
    return creations, executed


@pytest.mark.parametrize("name", ["bigquery", "snowflake", "redshift", "databricks"])
def test_a_merge_reads_the_times_of_its_rows_alone(name: str, tmp_path: Path) -> None:
    first_seen, received = moment(3), moment(5)
    booking = Booking(booking_id="B1", version="1", status=BookingStatus.CONFIRMED)
    row = BookingMessage.of(sample(1), booking).to_row(datetime.now(UTC)) | {"first_seen_at": first_seen}
    event = event_row(sample(2), "any/0/0", datetime.now(UTC)) | {"received_at": received}
    rows = {"bookings": [row], "booking_events": [event, event | {"id": "E3", "received_at": moment(9)}]}
    creations, merges = _statements(name, tmp_path, rows)
    bookings, events = (
        next(sql for sql in merges if f"{table}" in sql.lower() and not sql.startswith("INSERT"))
        for table in rows
    )
    assert f"first_seen_at BETWEEN {_literal(name, first_seen)} AND {_literal(name, first_seen)})" in bookings
    assert f"received_at BETWEEN {_literal(name, received)} AND {_literal(name, moment(9))})" in events
    organised = {
        "bigquery": "PARTITION BY TIMESTAMP_TRUNC(`{}`, MONTH)\nCLUSTER BY `vendor`, `account`,",
        "snowflake": "",
        "redshift": '"{}" timestamp with time zone SORTKEY',
        "databricks": "CLUSTER BY (`vendor`,`account`,`{}`)",
    }[name]
    assert organised.format("first_seen_at") in creations["bookings"]
    assert organised.format("received_at") in creations["booking_events"]


def _literal(name: str, instant: datetime) -> str:
    text = f"'{instant.isoformat(sep=' ', timespec='microseconds')}'"
    return f"TIMESTAMP {text}" if name == "bigquery" else text
