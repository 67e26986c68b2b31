"""Events as large as a receiver accepts them, of the kinds that grow most when they are read."""

from dataclasses import replace

import orjson

from ingest.event import Event
from tests.consumers.samples import sample

BODY_LIMIT = 1024 * 1024
_MARK = b'"filler":null'


def large(kind: str, number: int, size: int = BODY_LIMIT) -> Event:
    """Return an event of a booking of its own, with a body of about `size` bytes.

    `kind` is one of KINDS.
    """
    event = sample(number, f"B{number}", number % 60, filler=None)
    body = event.data.replace(_MARK, KINDS[kind](size - len(event.data)))
    return replace(event, data=body)


def _answers(room: int) -> bytes:
    """Return form fields, each of which becomes an object of the column `answers`."""
    fields = [{"name": f"q{number}", "value": "a"} for number in range(room // 30)]
    return b'"filler":0,"form_submission":' + orjson.dumps(
        {"name": "Ada", "email": "ada@example.com", "custom_fields": fields}
    )


KINDS = {
    "text": lambda room: b'"filler":"' + b"a" * room + b'"',
    "many keys": lambda room: (
        b'"filler":' + orjson.dumps({f"{number:05x}": 0 for number in range(room // 10)})
    ),
    "empty lists": lambda room: b'"filler":[' + b",".join([b"[]"] * (room // 3)) + b"]",
    "small numbers": lambda room: b'"filler":[' + b",".join([b"1"] * (room // 2)) + b"]",
    "large numbers": lambda room: b'"filler":[' + b",".join([b"1e999"] * (room // 6)) + b"]",
    "deep lists": lambda room: b'"filler":' + b"[" * (room // 2) + b"]" * (room // 2),
    "escapes": lambda room: b'"filler":"' + b"\\u0000" * (room // 6) + b'"',
    "a long subject": lambda room: b'"subject":"' + b"s" * room + b'"',
    "answers": _answers,
}
