"""Explains what is wrong with settings.

The name as it was written, the fault and the remedy, and never a value.
"""

import difflib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ingest.duration import format_duration
from ingest.settings import Settings, nearest_account_model, section_models
from ingest.settings.environment import PREFIX, Tree, Variable, variable_name
from ingest.vendors import AccountSettings

_ACCOUNT_LEVELS = 3  # accounts.<name>.<setting>
_EXAMPLES = {"name": "an account's name has lower-case letters, digits, _ and - only"}


def explain(error: ValidationError, tree: Tree, variables: Sequence[Variable]) -> list[str]:
    """Return one sentence for each fault."""
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
    name = _name(path, variables)
    if kind == "extra_forbidden":
        near = _near(path, tree, by_variable=name.startswith(PREFIX))
        return f"unknown setting {name}" + (f": did you mean {near}?" if near else "")
    if kind == "string_pattern_mismatch" and path[-1] in _EXAMPLES:
        return f"{name}: {_EXAMPLES[path[-1]]}"
    if kind == "value_error":
        return f"{name}: {message.removeprefix('Value error, ')}"
    return f"{name}: {message}{_example(path, tree)}"


def _name(path: list[str], variables: Sequence[Variable]) -> str:
    """Return a setting's name; that of its variable where one has set it, or something below it."""
    setting = [variable.name for variable in variables if list(variable.path[: len(path)]) == path]
    return setting[-1] if setting else ".".join(path)


def _near(path: list[str], tree: Tree, *, by_variable: bool) -> str | None:
    """Return the setting that was probably meant."""
    near = difflib.get_close_matches(path[-1], _model(path[:-1], tree).model_fields, n=1, cutoff=0.5)
    if by_variable and len(path) == 1 and (joined := _one_underscore_short(path[0], tree)):
        return joined
    return ".".join([*path[:-1], near[0]]) if near else None


def _one_underscore_short(key: str, tree: Tree) -> str | None:
    """Return the variable that was meant where one underscore joins two levels, like `receiver_port`."""
    paths = {"_".join(path): path for path in _all_paths(tree)}
    near = difflib.get_close_matches(key, paths, n=1, cutoff=0.9)
    return f"{variable_name(*paths[near[0]])}, with two underscores between levels" if near else None


def _all_paths(tree: Tree) -> Iterator[tuple[str, ...]]:
    """Yield the paths of all settings in sections and in the existing accounts."""
    for section, model in section_models().items():
        yield from ((section, key) for key in model.model_fields)
    accounts = tree.get("accounts")
    for name in accounts if isinstance(accounts, dict) else ():
        yield from (
            ("accounts", name.replace("-", "_"), key) for key in _model(["accounts", name], tree).model_fields
        )


def _model(path: list[str], tree: Tree) -> type[BaseModel]:
    """Return the model of the settings below this path."""
    if path[:1] == ["accounts"]:
        accounts = tree.get("accounts")
        table = accounts.get(path[1]) if isinstance(accounts, dict) and len(path) > 1 else None
        return nearest_account_model(table) if isinstance(table, dict) else AccountSettings
    return section_models().get(path[0], Settings) if path else Settings


def _example(path: list[str], tree: Tree) -> str:
    """Return a setting's default in words, or "" where there is none."""
    levels = _ACCOUNT_LEVELS if path[0] == "accounts" else 2
    field = _model(path[: levels - 1][: len(path) - 1], tree).model_fields.get(path[-1])
    text = default_text(field) if field else None
    return f" (default: {text})" if text else ""


def default_text(field: FieldInfo) -> str | None:
    """Return a field's default as it is written in the settings; None where there is none."""
    default: Any = field.default
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, timedelta):
        return format_duration(default)
    return str(default) if isinstance(default, str | int) and default != "" else None
