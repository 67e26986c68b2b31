"""Which settings are secrets, and so do not belong in the open settings file."""

from pydantic import BaseModel

from ingest.settings.sections import WarehouseSettings


def secret_fields(model: type[BaseModel]) -> list[str]:
    """The names of the model's secrets. `warehouse.credentials` is none of them: it is secret only with a password in it."""
    names = [name for name, field in model.model_fields.items() if "SecretStr" in str(field.annotation)]
    return [name for name in names if (model, name) != (WarehouseSettings, "credentials")]
