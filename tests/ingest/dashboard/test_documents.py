"""The documents of docs/api: they are valid, and say what the code does."""

import json
import subprocess
import sys

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from consumers.rows import SCHEMAS
from ingest.dashboard.api import routes
from ingest.dashboard.asyncapi import asyncapi_document
from ingest.dashboard.openapi import openapi_document
from ingest.settings import Settings
from tests.destinations.environments import npm_packages, python_packages
from tests.ingest.dashboard.reference import FOLDER, MEANINGS, column_meanings, documents
from tests.support.processes import environment


@pytest.mark.parametrize("name", documents())
def test_a_document_is_as_the_code_makes_it(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == documents()[name], "run `make docs`"


def test_the_schema_of_a_booking_is_one() -> None:
    Draft202012Validator.check_schema(json.loads(documents()["booking.json"]))


def test_openapi_has_every_route() -> None:
    paths = {route.path.replace(":path", "") for route in routes(Settings())}
    others = {"/api/openapi.json", "/api/schemas/booking.json"}  # those that describe
    others |= {"/bookings.csv", "/live.csv"}  # a page's
    assert paths - others == openapi_document()["paths"].keys()


def test_openapi_is_valid() -> None:
    folder = python_packages("openapi", "openapi-spec-validator==0.9.0")
    completed = subprocess.run(
        [sys.executable, "-m", "openapi_spec_validator", str(FOLDER / "openapi.json")],
        env=environment(PYTHONPATH=str(folder)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr


def test_asyncapi_is_valid() -> None:
    folder = npm_packages("asyncapi", "@asyncapi/specs@6.11.1")
    schema = json.loads(
        (folder / "node_modules/@asyncapi/specs/schemas/3.0.0.json").read_text(encoding="utf-8")
    )
    errors = [error.message for error in Draft7Validator(schema).iter_errors(asyncapi_document())]
    assert errors == []


def test_the_meanings_of_columns_are_those_of_the_documentation_and_no_column_lacks_one() -> None:
    assert MEANINGS.read_text(encoding="utf-8") == column_meanings(), "run `make docs`"
    meanings = json.loads(column_meanings())
    for table, schema in SCHEMAS.items():
        assert set(schema.names) == meanings[table].keys(), table
