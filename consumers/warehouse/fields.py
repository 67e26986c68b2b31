"""Vendors' records in a form in which every field has a column of its own. Pure.

dlt names columns in snake case: `fooBar` and `foo_bar`, `na!e` and `na%e`, or two names in Japanese would
become one column, and all values but one would be lost.
https://dlthub.com/docs/general-usage/naming-convention
"""

import json
from collections.abc import Callable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any

from dlt.common.normalizers.naming.snake_case import NamingConvention

from ingest.event import digest

# Deeper values become JSON text: each level becomes a part of a column's name, or a table.
_DEEPEST = 12
_DIGEST_LENGTH = 6
_EMPTY = "_empty"  # dlt's name of an empty name
_LIST = "[]"

_NAMING = NamingConvention()

Renamed = Callable[[str, str], None]


class Fields:
    """The fields of a table's records.

    Of names that share a column the first one owns it, and the others get a digest. `owners` are the names by
    path and column. They are stored from one sync to the next, or columns would swap their meaning.
    """

    def __init__(self, owners: MutableMapping[str, str], renamed: Renamed) -> None:
        """Call `renamed` once with each field that has another column than dlt would give it."""
        self._owners = owners
        self._renamed = renamed
        self._columns: dict[tuple[str, str], str] = {}

    def rename(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the record with fields renamed where needed, and with values that every warehouse takes."""
        return self._object("", record, 0)

    def _object(self, path: str, fields: Mapping[str, Any], depth: int) -> dict[str, Any]:
        # A name that already is as dlt has it goes first: keys are named so, and must stay what they are.
        for name in sorted(fields, key=lambda name: _normalized(name) != name):
            if (path, name) not in self._columns:
                self._columns[path, name] = self._column(path, name)
        columns = {name: self._columns[path, name] for name in fields}
        return {
            column: self._value(f"{path}{_normalized(column)}.", fields[name], depth + 1)
            for name, column in columns.items()
        }

    def _column(self, path: str, name: str) -> str:
        """Return a field's column: its name, where dlt makes the right column of that."""
        column = _not_reserved(path, _normalized(name))
        if self._owners.setdefault(f"{path}{column}", name) != name:
            column = f"{column}_{digest(name)[:_DIGEST_LENGTH]}"
        if column == _normalized(name):
            return name
        self._renamed(f"{path}{name}", f"{path}{column}")
        return column

    def _value(self, path: str, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            # PostgreSQL cannot hold NUL. https://www.postgresql.org/docs/current/datatype-character.html
            return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in value else value
        if not isinstance(value, dict | list):
            return value
        if depth > _DEEPEST:
            return json.dumps(value, ensure_ascii=False).replace("\\u0000", "\N{REPLACEMENT CHARACTER}")
        if isinstance(value, dict):
            return self._object(path, value, depth)
        return [self._value(f"{path}{_LIST}", entry, depth + 1) for entry in value]


@lru_cache(10_000)
def _normalized(name: str) -> str:
    """Return the column that dlt would make of a name."""
    return _NAMING.normalize_identifier(name) if name.strip() else _EMPTY


def _not_reserved(path: str, column: str) -> str:
    """Return another column for a field whose own would be ours or dlt's, which rows of lists have, too."""
    is_row = not path or path.endswith(_LIST)
    is_reserved = (column == "account" and not path) or (column.startswith("_dlt") and is_row)
    return f"vendor_{column.lstrip('_')}" if is_reserved else column
