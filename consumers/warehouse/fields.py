"""Vendors' records in a form in which every field keeps a column of its own. Pure.

dlt names columns in snake case: `fooBar` and `foo_bar`, `na!e` and `na%e`, two names in Japanese would be one column, and all values
but one would be lost. https://dlthub.com/docs/general-usage/naming-convention
"""

import json
from collections.abc import Callable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any

from dlt.common.normalizers.naming.snake_case import NamingConvention

from ingest.event import digest

# Deeper values become JSON text: each level is a part of a column's name, or a table.
_DEEPEST = 12
_DIGEST_LENGTH = 6
_EMPTY = "_empty"  # dlt's own name for it
_LIST = "[]"

_NAMING = NamingConvention()

Renamed = Callable[[str, str], None]


class Fields:
    """One table's. The first name seen of those that fall together owns the plain column, the others get one with a digest in its name.

    `owners` are the names by place and column, to be kept from one sync to the next, or columns would swap their meaning.
    """

    def __init__(self, owners: MutableMapping[str, str], renamed: Renamed) -> None:
        """`renamed` is told of each field that has another column than dlt would give it, once."""
        self._owners = owners
        self._renamed = renamed
        self._columns: dict[tuple[str, str], str] = {}

    def of(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record, its fields renamed where that is needed, and with values that every warehouse takes."""
        return self._object("", record, 0)

    def _object(self, place: str, fields: Mapping[str, Any], depth: int) -> dict[str, Any]:
        # A name that already is as dlt has it goes first: keys are named so, and must stay what they are.
        for name in sorted(fields, key=lambda name: _plain(name) != name):
            if (place, name) not in self._columns:
                self._columns[place, name] = self._column(place, name)
        columns = {name: self._columns[place, name] for name in fields}
        return {
            column: self._value(f"{place}{_plain(column)}.", fields[name], depth + 1)
            for name, column in columns.items()
        }

    def _column(self, place: str, name: str) -> str:
        """The name itself, where dlt makes the right column of it."""
        plain = _beside_ours(place, _plain(name))
        owner = self._owners.setdefault(f"{place}{plain}", name)
        column = plain if owner == name else f"{plain}_{digest(name)[:_DIGEST_LENGTH]}"
        if column == _plain(name):
            return name
        self._renamed(f"{place}{name}", f"{place}{column}")
        return column

    def _value(self, place: str, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            # PostgreSQL has no place for it. https://www.postgresql.org/docs/current/datatype-character.html
            return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in value else value
        if not isinstance(value, dict | list):
            return value
        if depth > _DEEPEST:
            return json.dumps(value, ensure_ascii=False).replace("\\u0000", "\N{REPLACEMENT CHARACTER}")
        if isinstance(value, dict):
            return self._object(place, value, depth)
        return [self._value(f"{place}{_LIST}", entry, depth + 1) for entry in value]


@lru_cache(10_000)
def _plain(name: str) -> str:
    """The column that dlt would make of a name."""
    return _NAMING.normalize_identifier(name) if name.strip() else _EMPTY


def _beside_ours(place: str, column: str) -> str:
    """A field of a vendor's whose column would be ours, or dlt's, gets another: rows of lists have dlt's columns, too."""
    is_row = not place or place.endswith(_LIST)
    is_ours = (column == "account" and not place) or (column.startswith("_dlt") and is_row)
    return f"vendor_{column.lstrip('_')}" if is_ours else column
