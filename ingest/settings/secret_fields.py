"""Which settings are secrets, and so do not belong in the open settings file."""

from typing import Any, get_args

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from ingest.settings.sections import WarehouseSettings

_SECRETS = (SecretStr, SecretBytes, Secret)


def secret_fields(model: type[BaseModel]) -> list[str]:
    """The names of the model's secrets. `warehouse.credentials` is none of them: it is secret only with a password in it."""
    names = [name for name, field in model.model_fields.items() if _is_secret(field.annotation)]
    return [name for name in names if (model, name) != (WarehouseSettings, "credentials")]


def _is_secret(kind: Any) -> bool:
    """Whether a value of the type is, or may have in it, one of pydantic's secrets."""
    return (isinstance(kind, type) and issubclass(kind, _SECRETS)) or any(map(_is_secret, get_args(kind)))
