"""Makes a JSON schema of `ingest.toml` from the settings' models, for editors that complete and check it.

Secrets are left out, because they do not belong in that file.
"""

from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from ingest.duration import format_duration
from ingest.settings import Settings, section_models
from ingest.settings.secret_fields import secret_fields
from ingest.vendors import load_account_class, vendor_names

Schema = dict[str, Any]

TITLE = "Settings of bookings-ingest"
# what Taplo, the TOML language server of many editors, understands
_DIALECT = "http://json-schema.org/draft-07/schema#"
_ACCOUNT_NAME = "^[a-z0-9][a-z0-9_-]*$"
# Where the models take one text for a list too.
_LIST = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


class _SchemaGenerator(GenerateJsonSchema):
    """Writes the defaults of durations as people do."""

    def encode_default(self, dft: Any) -> Any:
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


def settings_schema() -> Schema:
    """Return the schema of the settings file."""
    properties = {
        name: property_ for name, property_ in _table(Settings)["properties"].items() if name != "accounts"
    }
    properties |= {name: _table(model) for name, model in section_models().items()}
    return {
        "$schema": _DIALECT,
        "title": TITLE,
        "type": "object",
        "additionalProperties": False,
        "properties": {**properties, "accounts": _accounts()},
    }


def _accounts() -> Schema:
    """Return the schema of the accounts, each with the settings of its vendor."""
    vendors = {name: load_account_class(name).settings_model for name in vendor_names()}
    tables = {name: _table(model, vendor=name) for name, model in vendors.items()}
    return {
        "type": "object",
        "description": "Accounts by name; the name is part of the webhook URL.",
        "propertyNames": {"pattern": _ACCOUNT_NAME},
        "additionalProperties": {
            "type": "object",
            "properties": {"vendor": {"enum": list(vendors)}},
            "allOf": [
                {"if": {"properties": {"vendor": {"const": name}}, "required": ["vendor"]}, "then": table}
                for name, table in tables.items()
            ],
        },
    }


def _table(model: type[BaseModel], **constants: str) -> Schema:
    """Return the schema of a table.

    The model's fields without secrets, and without the name that an account has from its table.
    """
    schema = model.model_json_schema(schema_generator=_SchemaGenerator)
    hidden = {*secret_fields(model), *(["name"] if constants else [])}
    properties = {
        name: _property(schema["properties"][name], constants.get(name))
        for name in model.model_fields
        if name not in hidden
    }
    description = (model.__doc__ or "").partition("\n")[0]
    return {
        "type": "object",
        "description": description,
        "additionalProperties": False,
        "properties": properties,
    }


def _property(schema: Schema, constant: str | None) -> Schema:
    """Return a property without pydantic's titles and without null, which TOML does not have.

    A list may also be text.
    """
    plain = {
        key: value
        for key, value in schema.items()
        if key not in {"title", "format", "writeOnly"} and not (key == "default" and value is None)
    }
    if constant:
        return {**plain, "const": constant}
    if plain.get("type") == "array":
        return {
            **{key: value for key, value in plain.items() if key not in {"type", "items", "minItems"}},
            **_LIST,
        }
    if choices := [choice for choice in plain.pop("anyOf", []) if choice != {"type": "null"}]:
        return {**plain, **(choices[0] if len(choices) == 1 else {"anyOf": choices})}
    return plain
