"""Bounds of merges: the times of the rows that a load can meet, so that a destination reads no others.

dlt compares the rows of a load with the whole table. Each booking keeps the time when it was first seen, and
of events only new ones are merged, which no stored row equals. So partitions and blocks of other times need
not be read, where a destination knows the times of each.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa
from dlt.common.data_writers.escape import format_datetime_literal
from dlt.destinations.sql_client import SqlClientBase

from consumers.warehouse.clients import change_clients, rewrite_statements

# As dlt writes them, in one line.
_MERGE = re.compile(r"MERGE INTO \S*?(?P<table>\w+)\W? d USING .+? s\s+ON (?=d\.)")
_DELETE = re.compile(r"DELETE FROM \S*?(?P<table>\w+)\W? WHERE (?=EXISTS )")


class MergeBounds:
    """The bounds of a load's merges. `columns` are the columns with the times, by table."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.columns = columns
        self._spans: dict[str, tuple[datetime, datetime]] = {}

    def apply_to(self, destination: Any) -> None:
        """Bound every merge by this dlt destination. The caller says of which rows by `set_rows`."""
        if self.columns:
            change_clients(
                destination,
                lambda client: rewrite_statements(
                    client, lambda statements: [self.bounded(statement, client) for statement in statements]
                ),
            )

    def set_rows(self, rows: Mapping[str, pa.Table]) -> None:
        """Set the bounds to those of the rows of a load, by table."""
        times = {
            name: [time for time in rows[name][column].to_pylist() if time]
            for name, column in self.columns.items()
            if name in rows
        }
        self._spans = {name: (min(of_rows), max(of_rows)) for name, of_rows in times.items() if of_rows}

    def bounded(self, statement: str, client: SqlClientBase[Any]) -> str:
        """Return a statement with the bound of its table, where it is a merge, or the deletion of one."""
        match = _MERGE.match(statement) or _DELETE.match(statement)
        span = self._spans.get(match["table"].lower()) if match else None
        if not (match and span):
            return statement
        literal = getattr(client.capabilities, "format_datetime_literal", None) or format_datetime_literal
        column = f"{'d.' if match.re is _MERGE else ''}{self.columns[match['table'].lower()]}"
        bound = f"({column} IS NULL OR {column} BETWEEN {literal(span[0])} AND {literal(span[1])})"
        return f"{match[0]}{bound} AND {statement[match.end() :]}"
