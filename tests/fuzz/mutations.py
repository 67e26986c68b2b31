"""Changes to a sample's body that break readers of JSON, numbers, text and times."""

import json
import zlib
from collections.abc import Callable, Sequence
from gzip import compress
from random import Random
from typing import Any

from tests.fuzz.accounts import Sample

# Literals as they stand in the JSON text, some of which no writer of JSON would write.
_LITERALS: Sequence[bytes] = (
    b"1e400", b"-1e400", b"1E+999999999", b"-0", b"-0.0", b"0.1e-400", b"9" * 5000, b"-" + b"9" * 400,
    b"0." + b"3" * 5000,
    b"1" + b"0" * 38,
    b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616",
    b"2147483648", b"1e309", b"4.9e-324",
    b"NaN", b"Infinity", b"-Infinity", b"nan", b"0x10", b"01", b"+1", b"1.", b".5", b"1_000", b"True",
    b"None", b"undefined",
    b"null", b"true", b"false", b"0", b"-1", b"1", b"1.5", b"[]", b"{}", b"[[]]", b"[null]", b'{"":""}',
    b'{"id":{"id":{}}}',
    b"[1,[2,[3]]]",
    b'""', b'" "', b'"\\u0000"', b'"a\\u0000b"', b'"\x00"', b'"\\ud800"', b'"\\udc00\\ud800"',
    b'"\\ud83d\\ude00"', b'"\xff\xfe"',
    b'"\xc0\x80"',
    b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x80\xae"', b'"\\x41"', b'"\\"', b'"\n"', b'"\\u00"',
    b'"\xef\xbb\xbf"', b"'single'",
    b'"0001-01-01T00:00:00+23:59"', b'"9999-12-31T23:59:59.999999Z"', b'"9999-12-31T23:59:59-23:59"',
    b'"2026-02-30T00:00:00Z"',
    b'"2026-06-09"', b'"2026-06-09T21:37:17"', b'"+1000000-01-01T00:00:00Z"', b'"-0001-01-01T00:00:00Z"',
    b"253402300800", b"-62135596801",
    b'"1e999"', b'"NaN"', b'"Infinity"', b'"99999999999999999999999999999999999999.99"', b'"1e-999999"',
    b'"-1"', b'"0x7f"', b'"\xd9\xa3"',
    b'"\'; DROP TABLE bookings; --"', b'"%s%n{0}{__class__}"', b'"=1+1"', b'"../../../../etc/passwd"',
    b'"\\u202e\\ufeff\\uffff"',
    b'"' + b"k" * 3000 + b'"', b'"' + b"\\u0000" * 200 + b'"', b'"' + b"\xf0\x9f\x98\x80" * 300 + b'"',
    b"[" * 300 + b"]" * 300,
    b'{"a":' * 300 + b"1" + b"}" * 300, b"[" + b"0," * 2000 + b"0]", b"[" * 3000,
)  # fmt: skip
# Rare, because each takes its time.
_LARGE: Sequence[Callable[[Random], bytes]] = (
    lambda chance: b'"' + b"x" * chance.randrange(100_000, 900_000) + b'"',
    lambda chance: b"[" * chance.randrange(50_000, 400_000),
    lambda _: b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    lambda _: b"9" * 100_000,
    lambda _: b"[" + b'{"id":"a"},' * 20_000 + b"1]",
    lambda _: b"{" + b",".join(b'"%d":1' % number for number in range(20_000)) + b"}",
)
_RARE = 0.001
_MARK = "@@here@@"
_TEXT_MARK = f'"{_MARK}"'.encode()
_NUL_KEYS = ("", "\x00", "a\x00b", "\ud800", "__proto__", "k" * 2000)

_ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": compress,
    "deflate": zlib.compress,
    "br": lambda body: b"\x8b\x02\x80" + body,
}


def hostile(chance: Random, sample: Sample) -> bytes:
    """Return a body with one to three places changed, or another text altogether."""
    if chance.random() < 0.25:
        return chance.choice(_WHOLE)(chance, sample.body)
    document = json.loads(sample.body)
    literals = [
        changed for _ in range(chance.choice((1, 1, 2, 3))) if (changed := _change(chance, document, sample))
    ]
    text = json.dumps(document).encode()
    for literal in literals:
        text = text.replace(_TEXT_MARK, literal, 1)
    return text


def encoded(chance: Random, body: bytes) -> tuple[str, bytes]:
    """Return a compressed body with the encoding that it claims, which need not be the right one."""
    name = chance.choice(list(_ENCODINGS))
    return chance.choice((name, name, "gzip", "zstd", "gzip, gzip", "identity")), _ENCODINGS[name](body)


def _change(chance: Random, document: Any, sample: Sample) -> bytes | None:
    """Change a place in the document. Returns the literal to put at the mark, where there is one."""
    parent, key = _reach(document, chance.choice(sample.places))
    if not isinstance(parent, dict | list) or (isinstance(parent, list) and key >= len(parent)):
        return None  # an earlier change took the place away
    how = chance.random()
    if how < 0.15:
        parent.pop(key, None) if isinstance(parent, dict) else parent.pop(key)
        return None
    if how < 0.3 and isinstance(parent, dict):
        parent[chance.choice(_NUL_KEYS)] = parent.get(key)
        return None
    parent[key] = _MARK
    literal = chance.choice(_LARGE)(chance) if chance.random() < _RARE else chance.choice(_LITERALS)
    again = b', "' + str(key).encode() + b'": ' + chance.choice(_LITERALS)
    return literal + (again if how < 0.4 and isinstance(parent, dict) else b"")  # the key twice


def _reach(document: Any, path: tuple[Any, ...]) -> tuple[Any, Any]:
    for key in path[:-1]:
        is_there = (isinstance(document, dict) and key in document) or (
            isinstance(document, list) and isinstance(key, int) and key < len(document)
        )
        if not is_there:
            return None, None
        document = document[key]
    return document, path[-1]


def _one_byte(chance: Random, body: bytes) -> bytes:
    at = chance.randrange(len(body))
    return body[:at] + chance.randbytes(chance.randrange(3)) + body[at + chance.randrange(3) :]


_WHOLE: Sequence[Callable[[Random, bytes], bytes]] = (
    _one_byte,
    _one_byte,
    _one_byte,
    lambda chance, body: body[: chance.randrange(len(body))],
    lambda chance, _: chance.choice(_LITERALS),
    lambda chance, _: chance.randbytes(chance.randrange(200)),
    lambda _, __: b"",
    lambda _, body: b"\xef\xbb\xbf" + body,
    lambda _, body: body + body,
    lambda _, body: b"[" + body + b"]",
    lambda _, body: body + b"\x00",
    lambda chance, body: b" \r\n\t" * chance.randrange(500) + body,
    lambda chance, body: body.decode(errors="replace").encode(
        chance.choice(("utf-16", "utf-32", "utf-7", "cp500"))
    ),
    lambda _, body: b"payload=" + body,
)
