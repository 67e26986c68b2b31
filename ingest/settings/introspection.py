"""What the models of the settings say: secrets, defaults, explanations of faults, and a JSON schema."""

import difflib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, get_args

from pydantic import BaseModel, Secret, SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from ingest.settings import Settings, nearest_account_model, section_models
from ingest.settings.layers import PREFIX, Tree, Variable, variable_name
from ingest.settings.warehouse import WarehouseSettings
from ingest.times import format_duration
from ingest.vendors import AccountSettings, load_account_class, vendor_names

Schema = dict[str, Any]

_SECRETS = (SecretStr, SecretBytes, Secret)

_ACCOUNT_LEVELS = 3  # accounts.<name>.<setting>
_EXAMPLES = {"name": "an account's name has lower-case letters, digits, _ and - only"}

URLS_OF_WAREHOUSE = ("credentials", "catalog")
"""Settings of the warehouse that are secret where a password is in them."""

TITLE = "Settings of bookings-ingest"
# What Taplo, the TOML language server of many editors, understands.
_DIALECT = "http://json-schema.org/draft-07/schema#"
_ACCOUNT_NAME = "^[a-z0-9][a-z0-9_-]*$"
# Where the models take one text for a list too.
_LIST = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


def secret_fields(model: type[BaseModel]) -> list[str]:
    """Return the names of a model's secrets.

    URLS_OF_WAREHOUSE are not among them, because they are only secret with a password in them.
    """
    names = [name for name, field in model.model_fields.items() if _is_secret(field.annotation)]
    return [name for name in names if not (model is WarehouseSettings and name in URLS_OF_WAREHOUSE)]


def _is_secret(kind: Any) -> bool:
    """Return whether a value of the type is one of pydantic's secrets, or may contain one."""
    return (isinstance(kind, type) and issubclass(kind, _SECRETS)) or any(map(_is_secret, get_args(kind)))


def default_text(field: FieldInfo) -> str | None:
    """Return a field's default as it is written in the settings; None where there is none."""
    default: Any = field.default
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, timedelta):
        return format_duration(default)
    return str(default) if isinstance(default, str | int | float) and default != "" else None


def explain(error: ValidationError, tree: Tree, variables: Sequence[Variable]) -> list[str]:
    """Return one sentence for each fault: the setting as it was written, and the remedy, but no value."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    return [
        _sentence([str(part) for part in fault["loc"]], fault["type"], fault["msg"], tree, variables)
        for fault in faults
    ]


def in_one_message(faults: Sequence[str]) -> str:
    """Return a single fault as it is, and several in lines."""
    return (
        faults[0]
        if len(faults) == 1
        else "\n".join([f"{len(faults)} settings are wrong:", *(f"- {fault}" for fault in faults)])
    )


def _sentence(path: list[str], kind: str, message: str, tree: Tree, variables: Sequence[Variable]) -> str:
    # Where a variable has set it, or something below it, the fault is the variable's.
    names = [variable.name for variable in variables if list(variable.path[: len(path)]) == path]
    name = names[-1] if names else ".".join(path)
    if kind == "extra_forbidden":
        near = _nearest_setting(path, tree, by_variable=name.startswith(PREFIX))
        return f"unknown setting {name}" + (f": did you mean {near}?" if near else "")
    if kind == "string_pattern_mismatch" and path[-1] in _EXAMPLES:
        return f"{name}: {_EXAMPLES[path[-1]]}"
    if kind == "value_error":
        return f"{name}: {message.removeprefix('Value error, ')}"
    levels = _ACCOUNT_LEVELS if path[0] == "accounts" else 2
    field = _model(path[: levels - 1][: len(path) - 1], tree).model_fields.get(path[-1])
    default = default_text(field) if field else None
    return f"{name}: {message}" + (f" (default: {default})" if default else "")


def _nearest_setting(path: list[str], tree: Tree, *, by_variable: bool) -> str | None:
    """Return the setting that was probably meant; None where none is near."""
    if by_variable and len(path) == 1:  # one underscore may join two levels, like `receiver_port`
        joined: dict[str, tuple[str, ...]] = {
            f"{section}_{key}": (section, key)
            for section, model in section_models().items()
            for key in model.model_fields
        }
        accounts = tree.get("accounts")
        for name in accounts if isinstance(accounts, dict) else ():
            account = name.replace("-", "_")
            for key in _model(["accounts", name], tree).model_fields:
                joined[f"accounts_{account}_{key}"] = ("accounts", account, key)
        if names := difflib.get_close_matches(path[0], joined, n=1, cutoff=0.9):
            return f"{variable_name(*joined[names[0]])}, with two underscores between levels"
    near = difflib.get_close_matches(path[-1], _model(path[:-1], tree).model_fields, n=1, cutoff=0.5)
    return ".".join([*path[:-1], near[0]]) if near else None


def _model(path: list[str], tree: Tree) -> type[BaseModel]:
    """Return the model of the settings below this path."""
    if path[:1] == ["accounts"]:
        accounts = tree.get("accounts")
        table = accounts.get(path[1]) if isinstance(accounts, dict) and len(path) > 1 else None
        return nearest_account_model(table) if isinstance(table, dict) else AccountSettings
    return section_models().get(path[0], Settings) if path else Settings


class _SchemaGenerator(GenerateJsonSchema):
    """Writes the defaults of durations as people do."""

    def encode_default(self, dft: Any) -> Any:
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


def settings_schema() -> Schema:
    """Return a JSON schema of `ingest.toml`, for editors that complete and check it.

    Secrets are left out, because they do not belong in that file.
    """
    top = _table(Settings)["properties"]
    sections = {name: _table(model) for name, model in section_models().items()}
    # An account has the settings of its vendor.
    vendors = {name: load_account_class(name).settings_model for name in vendor_names()}
    tables = {name: _table(model, vendor=name) for name, model in vendors.items()}
    account = {
        "type": "object",
        "properties": {"vendor": {"enum": list(vendors)}},
        "allOf": [
            {"if": {"properties": {"vendor": {"const": name}}, "required": ["vendor"]}, "then": table}
            for name, table in tables.items()
        ],
    }
    accounts = {
        "type": "object",
        "description": "Accounts by name; the name is part of the webhook URL.",
        "propertyNames": {"pattern": _ACCOUNT_NAME},
        "additionalProperties": account,
    }
    plain = {name: property_ for name, property_ in top.items() if name != "accounts"}
    return {
        "$schema": _DIALECT,
        "title": TITLE,
        "type": "object",
        "additionalProperties": False,
        "properties": {**plain, **sections, "accounts": accounts},
    }


def _table(model: type[BaseModel], **constants: str) -> Schema:
    """Return the schema of a table: the model's fields without secrets.

    With `constants`, which are values of settings, it is an account's, which has its name from its table.
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
