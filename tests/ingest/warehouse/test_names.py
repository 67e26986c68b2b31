"""Tests of the names of a result's columns, as drivers have them."""

from types import SimpleNamespace
from typing import Any

from ingest.destinations import POSTGRES, SNOWFLAKE, SQLALCHEMY
from ingest.warehouse.destination import column_names


def result(**native: Any) -> SimpleNamespace:
    return SimpleNamespace(native_cursor=SimpleNamespace(**native))


def test_names_in_capitals_are_lower_case_where_the_destination_has_all_names_so() -> None:
    described = result(description=[("VENDOR", 1), ("Quoted", 1), ("VENDOR", 1)])
    assert column_names(described, SNOWFLAKE) == ["vendor", "Quoted", "vendor"]
    assert column_names(described, POSTGRES) == ["VENDOR", "Quoted", "VENDOR"]


def test_results_without_a_description_have_keys() -> None:
    assert column_names(result(keys=lambda: ["id", "id"]), SQLALCHEMY) == ["id", "id"]


def test_a_statement_without_a_result_has_no_columns() -> None:
    assert column_names(result(description=None), POSTGRES) == []
