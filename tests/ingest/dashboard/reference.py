"""Make the documents of docs/api from the code: `python -m tests.ingest.dashboard.reference` writes them."""

import json
from collections.abc import Mapping
from typing import Any

from ingest.changes import booking_schema
from ingest.dashboard.asyncapi import asyncapi_document
from ingest.dashboard.openapi import openapi_document
from tests.support.processes import ROOT

FOLDER = ROOT / "docs" / "api"


def documents() -> Mapping[str, str]:
    """Return the text of each document by the name of its file."""
    values: dict[str, Any] = {
        "openapi.json": openapi_document(),
        "asyncapi.json": asyncapi_document(),
        "booking.json": booking_schema(),
    }
    return {name: json.dumps(value, indent=1, ensure_ascii=False) + "\n" for name, value in values.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
