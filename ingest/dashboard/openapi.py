"""The OpenAPI document of the HTTP API. It is docs/api/openapi.json."""

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from ingest import __version__
from ingest.booking import BookingStatus
from ingest.changes import ATTRIBUTES, CHANGED, GONE, SCHEMA_ID, BookingRow
from ingest.warehouse.booking_pages import EVENT_COLUMNS, SORTS

_REF = "#/components/schemas/{model}"
_INSTANT = {"type": "string", "format": "date-time"}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_PAGE_LIMIT = 1000

Schema = dict[str, Any]


def openapi_document() -> Schema:
    """Return the document."""
    _, models = models_json_schema([(BookingRow, "serialization")], ref_template=_REF)
    schemas = {name: _without_id(schema) for name, schema in models["$defs"].items()}
    schemas["Booking"] = schemas.pop("BookingRow")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bookings-ingest",
            "version": __version__,
            "description": "Bookings as the warehouse has them, and the feed of their changes.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "http://127.0.0.1:8084", "description": "`dashboard.host` and `dashboard.port`"}],
        "security": [{"token": []}, {}],
        "paths": {
            "/api/bookings": {"get": _list_bookings()},
            "/api/bookings.csv": {"get": _export_bookings()},
            "/api/bookings/{vendor}/{account}/{booking_id}": {"get": _get_booking()},
            "/api/changes": {"get": _follow_changes()},
        },
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "`dashboard.token`"}
            },
            "schemas": schemas | {"Error": _ERROR, "Event": _event_schema(), "Change": change_schema(_REF)},
        },
    }


def change_schema(reference: str) -> Schema:
    """Return the schema of a change as a CloudEvent in the JSON format. `reference` is that of a schema."""
    described: dict[str, Schema] = {name: {"type": "string"} for name in ATTRIBUTES}
    described["type"] = {"enum": [CHANGED, GONE]}
    described["dataschema"] = {"const": SCHEMA_ID}
    described["time"] = _INSTANT | {"description": "When the load began that changed the row."}
    described["version"]["description"] = (
        "The version of the row: of two states, the one that sorts last is newer."
    )
    described["cut"]["description"] = "Columns that are null here because the record would be too large."
    described["data"] = {"$ref": reference.format(model="Booking")}
    return {
        "type": "object",
        "required": ["specversion", "id", "source", "type", "subject", "version", "data"],
        "properties": described,
    }


def _without_id(schema: Schema) -> Schema:
    return {name: value for name, value in schema.items() if name != "$id"}


def _event_schema() -> Schema:
    columns: dict[str, Schema] = {name: {"type": ["string", "null"]} for name in EVENT_COLUMNS}
    columns["data"] = {"description": "The vendor's payload."}
    return {"type": "object", "properties": columns}


def _parameter(name: str, description: str, schema: Mapping[str, Any] | None = None) -> Schema:
    kind = schema or {"type": "string"}
    return {"name": name, "in": "query", "description": description, "schema": dict(kind)}


def _of_filter() -> list[Schema]:
    return [
        _parameter("vendor", "Only this vendor."),
        _parameter("account", "Only this account."),
        _parameter("status", f"Only these, separated by commas: {', '.join(BookingStatus)}."),
        _parameter("search", "A part of an id, name, e-mail address, telephone number or service."),
        _parameter("starts_from", "Only bookings that begin at this instant or later.", _INSTANT),
        _parameter("starts_until", "Only bookings that begin before this instant.", _INSTANT),
        _parameter("loaded_since", "Only rows that changed at this instant or later.", _INSTANT),
        _parameter(
            "sort",
            "The order, with a - before it for the last first; by key without it.",
            {"enum": [*SORTS, *(f"-{name}" for name in SORTS)]},
        ),
    ]


def _answers(description: str, content: Schema, *errors: str) -> Schema:
    why = {
        "400": "A parameter is wrong.",
        "404": "There is no such booking.",
        "503": "The log or the warehouse cannot be read now.",
    }
    error = {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}}
    return {
        "200": {"description": description, "content": content},
        **{status: {"description": why[status], "content": error} for status in errors},
    }


def _list_bookings() -> Schema:
    page = {
        "type": "object",
        "required": ["bookings", "next"],
        "properties": {
            "bookings": {"type": "array", "items": {"$ref": _REF.format(model="Booking")}},
            "next": {"type": ["string", "null"], "description": "The cursor of the next page."},
        },
    }
    limit = {"type": "integer", "minimum": 1, "maximum": _PAGE_LIMIT, "default": 100}
    return {
        "operationId": "listBookings",
        "summary": "A page of bookings.",
        "parameters": [
            *_of_filter(),
            _parameter("limit", "Bookings on a page.", limit),
            _parameter("cursor", "`next` of the page before, with the same filter and order."),
        ],
        "responses": _answers("A page.", {"application/json": {"schema": page}}, "400", "503"),
    }


def _export_bookings() -> Schema:
    return {
        "operationId": "exportBookings",
        "summary": "All bookings of a filter as CSV. A text that a spreadsheet would take for a formula"
        " begins with an apostrophe.",
        "parameters": _of_filter(),
        "responses": _answers("The file.", {"text/csv": {"schema": {"type": "string"}}}, "400", "503"),
    }


def _get_booking() -> Schema:
    found = {
        "type": "object",
        "required": ["booking", "events"],
        "properties": {
            "booking": {"$ref": _REF.format(model="Booking")},
            "events": {"type": "array", "items": {"$ref": _REF.format(model="Event")}},
        },
    }
    names = ("vendor", "account", "booking_id")
    return {
        "operationId": "getBooking",
        "summary": "A booking and its events by time of receipt, at most the newest 1000.",
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ],
        "responses": _answers("The booking.", {"application/json": {"schema": found}}, "400", "404", "503"),
    }


def _follow_changes() -> Schema:
    stream = {
        "type": "string",
        "description": "Server-sent events of the types"
        f" `{CHANGED}` and `{GONE}`, whose data is a Change. `dropped` says why the server ends the stream.",
    }
    last_id = {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "The id of the last event that was received: the stream goes on after it.",
        "schema": {"type": "string"},
    }
    return {
        "operationId": "followChanges",
        "summary": "The feed of changes, from now on or from where it was left.",
        "parameters": [
            *_of_filter()[:3],
            _parameter("since", "Begin with what was published at this instant.", _INSTANT),
            last_id,
        ],
        "responses": _answers("The stream.", {"text/event-stream": {"schema": stream}}, "400", "503"),
    }
