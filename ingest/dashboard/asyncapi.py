"""The AsyncAPI document of the log's topics. It is docs/api/asyncapi.json."""

from typing import Any

from pydantic.json_schema import models_json_schema

from ingest import __version__
from ingest.changes import CHANGED, GONE, SCHEMA_ID, BookingRow
from ingest.dead_letter import DeadLetter
from ingest.event import RECONCILED, Via
from ingest.vendors import vendor_names

Schema = dict[str, Any]

_REF = "#/components/schemas/{model}"
_TEXT = {"type": "string"}
_INSTANT = {"type": "string", "format": "date-time"}


def asyncapi_document() -> Schema:
    """Return the document, with the topics of the prefix `bookings`."""
    _, models = models_json_schema([(BookingRow, "serialization")], ref_template=_REF)
    schemas = models["$defs"] | {"Booking": models["$defs"]["BookingRow"]}
    del schemas["BookingRow"]
    schemas["Booking"] = {name: value for name, value in schemas["Booking"].items() if name != "$id"}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "bookings-ingest",
            "version": __version__,
            "description": "The topics of the log. Records are CloudEvents 1.0 in the binary mode of the"
            " Kafka binding: attributes are headers, and the data is the value. Keys are"
            " `vendor/account/booking id`. Names begin with `topic_prefix`, here `bookings`.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "events": {
                "address": "bookings.{vendor}",
                "description": "Each webhook, each state read by reconciliation, and each replayed event.",
                "parameters": {"vendor": {"enum": vendor_names()}},
                "messages": {"event": {"$ref": "#/components/messages/event"}},
            },
            "changes": {
                "address": "bookings.changes",
                "description": "Each booking's new row after a load that changed it, at least once and in"
                " order for each booking. Read it with isolation.level=read_committed. Kafka keeps the newest"
                " state of each booking.",
                "messages": {"change": {"$ref": "#/components/messages/change"}},
            },
            "deadLetters": {
                "address": "bookings.dead-letters",
                "description": "What could not be read or loaded.",
                "messages": {"deadLetter": {"$ref": "#/components/messages/deadLetter"}},
            },
            "audit": {
                "address": "bookings.audit",
                "description": f"Ends of reconciliations (`{RECONCILED}`) and other notes.",
                "messages": {"note": {"$ref": "#/components/messages/note"}},
            },
        },
        "operations": {
            f"send{name[0].upper()}{name[1:]}": {
                "action": "send",
                "channel": {"$ref": f"#/channels/{name}"},
            }
            for name in ("events", "changes", "deadLetters", "audit")
        },
        "components": {
            "messages": {
                "event": {
                    "title": "Event",
                    "headers": _headers({"ce_via": {"enum": list(Via)}, "ce_receivedat": _INSTANT}),
                    "payload": {"description": "The vendor's bytes, unchanged; JSON."},
                },
                "change": {
                    "title": "Change",
                    "headers": _headers(
                        {
                            "ce_type": {"enum": [CHANGED, GONE]},
                            "ce_dataschema": {"const": SCHEMA_ID},
                            "ce_version": _TEXT,
                            "ce_cut": _TEXT,
                        }
                    ),
                    "payload": {"$ref": _REF.format(model="Booking")},
                },
                "deadLetter": {
                    "title": "Dead letter",
                    "summary": (DeadLetter.__doc__ or "").splitlines()[0],
                    "payload": {"description": "The original bytes."},
                },
                "note": {"title": "Note", "headers": _headers({}), "payload": {"type": "object"}},
            },
            "schemas": schemas,
        },
    }


def _headers(further: Schema) -> Schema:
    own = {name: dict(_TEXT) for name in ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject")}
    return {"type": "object", "required": list(own), "properties": own | {"ce_time": _INSTANT} | further}
