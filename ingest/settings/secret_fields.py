"""Finds out which settings are secrets, and so do not belong in the open settings file."""

from typing import Any, get_args

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from ingest.settings.sections import WarehouseSettings

_SECRETS = (SecretStr, SecretBytes, Secret)


def secret_fields(model: type[BaseModel]) -> list[str]:
    """Return the names of a model's secrets.

    `warehouse.credentials` is not among them, because it is only secret with a password in it.
    """
    names = [name for name, field in model.model_fields.items() if _is_secret(field.annotation)]
    return [name for name in names if (model, name) != (WarehouseSettings, "credentials")]


def _is_secret(kind: Any) -> bool:
    """Return whether a value of the type is one of pydantic's secrets, or may contain one."""
    return (isinstance(kind, type) and issubclass(kind, _SECRETS)) or any(map(_is_secret, get_args(kind)))
