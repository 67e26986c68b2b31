"""Make the tables of docs/settings.md from the models of the settings.

`python -m tests.ingest.settings.reference` writes them into the file.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ingest.settings import Settings, section_models
from ingest.settings.introspection import default_text, secret_fields
from ingest.vendors import load_account_class, vendor_names
from tests.support.generated import replace_block

FILE = Path(__file__).parents[3] / "docs" / "settings.md"


def with_tables(text: str) -> str:
    """Return the text of docs/settings.md with each table between its two comments replaced."""
    return replace_block(replace_block(text, "settings", _settings()), "accounts", _accounts())


def _settings() -> Iterator[str]:
    yield from ("| setting | default | meaning |", "|---|---|---|")
    sections = section_models()
    for name, field in Settings.model_fields.items():
        if name not in {*sections, "accounts"}:
            yield f"| `{name}` | {_default(field)} | {_meaning(name, field)} |"
    for name, model in sections.items():
        for key, field in model.model_fields.items():
            meaning = _meaning(f"{name}.{key}", field)
            yield f"| `{name}.{key}`{_mark(model, key)} | {_default(field)} | {meaning} |"


def _accounts() -> Iterator[str]:
    """Yield a row for each setting and meaning, with the vendors that have it."""
    models = {name: load_account_class(name).settings_model for name in vendor_names()}
    vendors: dict[tuple[str, str, str], list[str]] = {}
    for vendor, model in models.items():
        for key, field in model.model_fields.items():
            if key != "name":
                row = (f"`{key}`{_mark(model, key)}", _default(field), _meaning(f"{vendor}.{key}", field))
                vendors.setdefault(row, []).append(load_account_class(vendor).title)
    yield from ("| setting | of | default | meaning |", "|---|---|---|---|")
    for (setting, default, meaning), names in vendors.items():
        owners = "all" if len(names) == len(models) else ", ".join(names)
        yield f"| {setting} | {owners} | {default} | {meaning} |"


def _mark(model: type[BaseModel], key: str) -> str:
    return " (secret)" if key in secret_fields(model) else ""


def _meaning(name: str, field: FieldInfo) -> str:
    if not field.description:
        raise ValueError(f"{name} has no description, which is what docs/settings.md and editors show")
    return field.description.replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    items = field.default if isinstance(field.default, tuple) else (default_text(field),)
    return ", ".join(f"`{item}`" for item in items if item) or "-"


if __name__ == "__main__":
    FILE.write_text(with_tables(FILE.read_text(encoding="utf-8")), encoding="utf-8")
