"""Make docs/api from the code, and the dashboard's meanings of columns from docs/tables.md.

`python -m tests.ingest.dashboard.reference` writes them.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from ingest.changes import BookingRow, booking_schema
from ingest.dashboard.asyncapi import asyncapi_document
from ingest.dashboard.openapi import openapi_document
from tests.support.processes import ROOT

FOLDER = ROOT / "docs" / "api"
TABLES = ROOT / "docs" / "tables.md"
MEANINGS = ROOT / "ingest" / "dashboard" / "columns.json"


def documents() -> Mapping[str, str]:
    """Return the text of each document by the name of its file."""
    values: dict[str, Any] = {
        "openapi.json": openapi_document(),
        "asyncapi.json": asyncapi_document(),
        "booking.json": booking_schema(),
    }
    return {name: json.dumps(value, indent=1, ensure_ascii=False) + "\n" for name, value in values.items()}


def column_meanings() -> str:
    """Return the text of columns.json: the meaning of each column, by table.

    Those of `bookings` are in its schema, those of the other tables in docs/tables.md, without its Markdown.
    """
    bookings = {name: field.description or "" for name, field in BookingRow.model_fields.items()}
    meanings, table = {"bookings": {name: text.replace("`", "") for name, text in bookings.items()}}, ""
    for line in TABLES.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = re.match(r"## `(\w+)`", line)
            table = heading[1] if heading and heading[1] != "bookings" else ""
        elif (
            table and (row := re.fullmatch(r"\| ([\w, ]+) \| [^|]+ \| (.+) \|", line)) and row[1] != "column"
        ):
            plain = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", row[2]).replace("`", "")
            for column in row[1].split(", "):
                meaning = meanings["bookings"][column] if plain == "as in bookings" else plain
                meanings.setdefault(table, {})[column] = meaning
    return json.dumps(meanings, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    MEANINGS.write_text(column_meanings(), encoding="utf-8")
    FOLDER.mkdir(exist_ok=True)
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
