"""Tests of rows that are given to dlt as values, where a destination does not take JSON in Arrow."""

import subprocess
import sys
from pathlib import Path

import dlt
import pytest

from consumers.booking_rows import Row
from consumers.rows import SCHEMAS, TABLES, Table, arrow_table, plain_rows
from consumers.warehouse.tables import Tables, resource_of
from ingest.destinations import BIGQUERY, find_destination
from ingest.errors import ConfigurationError, LoadRefused


def row_of(table: Table, **values: object) -> Row:
    return dict.fromkeys(SCHEMAS[table.name].names) | dict.fromkeys(table.key, "k") | values


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_columns_are_declared_so_that_no_value_decides_their_type(table: Table) -> None:
    resource = resource_of(table, arrow_table(table.name, [row_of(table)]), BIGQUERY)
    schema = resource.compute_table_schema()
    types = {name: column["data_type"] for name, column in schema["columns"].items()}
    assert types.keys() == set(SCHEMAS[table.name].names)
    assert {name for name, kind in types.items() if kind == "json"} == set(table.json)


def test_tables_of_bigquery_are_clustered() -> None:
    clusters = {
        table.name: resource_of(table, arrow_table(table.name, []), BIGQUERY)
        .compute_table_schema()
        .get("x-bigquery-cluster-columns")
        for table in TABLES
    }
    assert clusters["bookings"] == ["vendor", "account", "starts_at"]
    assert clusters["booking_events"] == ["vendor", "account", "received_at"]
    assert clusters["dead_letters"] is None


@pytest.mark.parametrize("text", ['"a text"', "5", "true"])
def test_json_that_is_neither_an_object_nor_a_list_is_refused(text: str) -> None:
    rows = arrow_table("booking_events", [row_of(TABLES[0], data=text)])
    with pytest.raises(LoadRefused, match="neither an object nor a list"):
        plain_rows("booking_events", rows)


def test_dlt_marks_types_by_a_character_that_no_text_has() -> None:
    code = "import consumers.run; from dlt.common.json import PUA_START; print(hex(PUA_START))"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "0xfdd0"


@pytest.mark.parametrize("name", ["athena", "lance", "qdrant", "weaviate"])
def test_a_destination_that_would_append_every_version_is_refused(name: str, tmp_path: Path) -> None:
    pipeline = dlt.pipeline("any", pipelines_dir=str(tmp_path), destination=dlt.destination(name))
    with pytest.raises(ConfigurationError, match=f"'{name}' cannot replace rows by their key"):
        Tables(pipeline, tmp_path, find_destination(name))


@pytest.mark.parametrize(("name", "strategy"), [("bigquery", "insert-only"), ("redshift", "delete-insert")])
def test_events_are_written_by_the_best_strategy_of_a_destination(
    name: str, strategy: str, tmp_path: Path
) -> None:
    pipeline = dlt.pipeline("any", pipelines_dir=str(tmp_path), destination=dlt.destination(name))
    tables = Tables(pipeline, tmp_path, find_destination(name))
    assert tables._merges["booking_events"] == {"disposition": "merge", "strategy": strategy}
