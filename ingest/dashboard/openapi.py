"""The OpenAPI document of the HTTP API."""

from typing import Any


def openapi_document() -> dict[str, Any]:
    """Return the document."""
    return {}
