"""The JSON schema that editors read, and the reference in docs/settings.md: both say what the models say."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from ingest.settings import Settings, section_models
from ingest.settings.introspection import secret_fields, settings_schema
from ingest.vendors import load_account_class, vendor_names
from tests.ingest.settings.reference import FILE, with_tables
from tests.ingest.settings.test_settings import DOCUMENTED

ROOT = Path(__file__).parents[3]
EXAMPLES = [
    (file.name, example)
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for example in re.findall(r"```toml\n(.*?)```", file.read_text(encoding="utf-8"), flags=re.DOTALL)
]
SALES = '[accounts.sales]\nvendor = "calendly"\n'


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    schema = json.loads(json.dumps(settings_schema()))
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def faults(validator: Draft7Validator, text: str) -> list[str]:
    return [error.message for error in validator.iter_errors(tomllib.loads(text))]


@pytest.mark.parametrize(
    ("file", "example"), EXAMPLES, ids=[f"{file} {number}" for number, (file, _) in enumerate(EXAMPLES)]
)
def test_the_examples_of_the_documentation_are_valid(
    validator: Draft7Validator, file: str, example: str
) -> None:
    assert faults(validator, example) == [], file


@pytest.mark.parametrize(
    "text",
    [
        "",
        DOCUMENTED,
        '[receiver]\nappend_timeout = 3\nhead_timeout = "5 seconds"',
        SALES + 'events = ["invitee.created"]\ntolerance = "3m"\nscope = "user"',
        SALES + 'events = "invitee.created, invitee.canceled"',
        '[accounts.salon]\nvendor = "appointedd"\nwebhook_header = "X-Token"',
        '[accounts.elsewhere]\ntolerance = "3m"',
        '[warehouse]\ndestination = "postgres"\ncredentials = "postgresql://me@host/db"',
    ],
)
def test_what_the_settings_take_is_valid(validator: Draft7Validator, text: str) -> None:
    assert faults(validator, text) == []


@pytest.mark.parametrize(
    "text",
    [
        'loog = "x"',
        "[reciever]\nport = 1",
        "[receiver]\nprot = 1",
        '[receiver]\nport = "eighty"',
        "[receiver]\nport = 65536",
        '[receiver]\nadmin_token = "hunter2"',
        '[kafka]\nsasl_password = "hunter2"',
        '[kafka]\nsecurity_protocol = "TLS"',
        '[reconcile]\nevery = "-1h"',
        '[webhooks]\nrepair = "maybe"',
        '[accounts.sales]\nvendor = "calendy"',
        '[accounts.Sales]\nvendor = "calendly"',
        SALES + 'timezone = "UTC"',
        SALES + 'api_token = "hunter2"',
        SALES + 'webhook_secrets = ["hunter2"]',
        SALES + 'name = "sales"',
        SALES + "scope = 5",
    ],
)
def test_what_the_settings_refuse_is_not(validator: Draft7Validator, text: str) -> None:
    assert faults(validator, text)


def tables() -> list[tuple[type[Any], dict[str, Any]]]:
    """Each model with what the schema has for it."""
    schema = settings_schema()["properties"]
    accounts = schema["accounts"]["additionalProperties"]["allOf"]
    by_vendor = {
        choice["if"]["properties"]["vendor"]["const"]: choice["then"]["properties"] for choice in accounts
    }
    sections = [(model, schema[name]["properties"]) for name, model in section_models().items()]
    return [
        *sections,
        *((load_account_class(name).settings_model, by_vendor[name]) for name in vendor_names()),
    ]


def test_every_setting_but_secrets_is_in_the_schema_with_its_meaning() -> None:
    for model, properties in tables():
        assert set(properties) == {*model.model_fields} - {*secret_fields(model), "name"}, model
        assert all(properties[name]["description"] for name in properties), model
    assert set(settings_schema()["properties"]) == set(Settings.model_fields)


def test_a_default_in_the_schema_is_what_the_settings_take() -> None:
    for model, properties in tables()[: len(section_models())]:
        defaults = {
            name: property_["default"] for name, property_ in properties.items() if "default" in property_
        }
        assert model.model_validate(defaults) == model()


def test_the_reference_says_what_the_models_say() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run `make docs`"
