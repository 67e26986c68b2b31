"""Rows as PostgreSQL's COPY takes them: binary, or CSV where a column has a type of its own.

The server reads binary rows in half of the time: most of a row is JSON, in which CSV doubles each quotation
mark. https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
"""

import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from io import BytesIO
from struct import pack
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

_HEADER = b"PGCOPY\n\xff\r\n\x00" + pack(">ii", 0, 0)
_TRAILER = pack(">h", -1)
_EPOCH = 946_684_800_000_000  # PostgreSQL counts microseconds from 2000 on
_JSONB_VERSION = b"\x01"
_DIGITS = 4  # decimal digits in each digit of a number
_BINARY = pa.large_binary()
_FEW_ROWS = 200  # they are CSV sooner than binary: Arrow's functions take a while, however few rows they get

_Array = Any  # of Arrow: the stubs do not know which types its functions take
_Encode = Callable[[_Array], _Array]
pc: Any = pyarrow.compute


def copy_file(rows: pa.Table, types: Sequence[int]) -> tuple[str, BytesIO]:
    """Return a format of COPY, and rows in it.

    `types` are the oids of the columns' types. Binary values have to be of exactly these, because another
    type of the same length would take them for something else.
    """
    encoders = [_ENCODERS.get((field.type, oid)) for field, oid in zip(rows.schema, types, strict=True)]
    known = [encode for encode in encoders if encode]
    if len(known) == len(encoders) and len(rows) > _FEW_ROWS:
        return "binary", _binary(rows, known)
    file = BytesIO()
    pyarrow.csv.write_csv(rows, file, pyarrow.csv.WriteOptions(include_header=False))
    file.seek(0)
    return "csv", file


def _binary(rows: pa.Table, encoders: Sequence[_Encode]) -> BytesIO:
    parts: list[Any] = [pa.scalar(pack(">h", rows.num_columns), _BINARY)]
    for column, encode in zip(rows.columns, encoders, strict=True):
        values = encode(column.combine_chunks())
        lengths = pc.fill_null(pc.binary_length(values), -1).cast(pa.int32())
        parts += [_big_endian(lengths, "i"), pc.fill_null(values, b"")]
    lines = pc.binary_join_element_wise(*parts, pa.scalar(b"", _BINARY))
    return BytesIO(b"".join([_HEADER, _contents(lines), _TRAILER]))


def _contents(values: _Array) -> memoryview:
    """Return the bytes of all values, one after the other."""
    _, offsets, data = values.buffers()
    if not len(values):
        return memoryview(b"")
    bounds = memoryview(offsets).cast("q")[values.offset :]
    return memoryview(data)[bounds[0] : bounds[len(values)]]


def _big_endian(numbers: _Array, code: str) -> _Array:
    """Return the bytes of each number, also of nulls. `code` is that of the numbers' type in `array`."""
    swapped = array(code)
    _, values = numbers.buffers()
    size = swapped.itemsize
    swapped.frombytes(memoryview(values)[numbers.offset * size :][: len(numbers) * size])
    if sys.byteorder == "little":
        swapped.byteswap()
    encoded = pa.Array.from_buffers(pa.binary(size), len(numbers), [None, pa.py_buffer(swapped)])
    return encoded.cast(_BINARY)


def _texts(values: _Array) -> _Array:
    return values.cast(pa.large_string()).cast(_BINARY)


def _jsonb(values: _Array) -> _Array:
    return pc.binary_join_element_wise(
        pa.scalar(_JSONB_VERSION, _BINARY), _texts(values), pa.scalar(b"", _BINARY)
    )


def _numbers(values: _Array) -> _Array:
    """Return numbers of 8 bytes each."""
    encoded = _big_endian(values, "q")
    return pc.if_else(values.is_valid(), encoded, pa.scalar(None, _BINARY)) if values.null_count else encoded


def _times(values: _Array) -> _Array:
    return _numbers(pc.subtract(values.cast(pa.int64()), _EPOCH))


def _decimals(values: _Array) -> _Array:
    """Return decimals, of which few differ."""
    distinct = values.dictionary_encode()
    encoded = [_decimal(value) for value in distinct.dictionary.to_pylist()]
    return pa.array(encoded, _BINARY).take(distinct.indices)


def _decimal(value: Decimal) -> bytes:
    """Return a finite decimal as the server has it: in digits of 10,000, of which the first has a `weight`.

    https://github.com/postgres/postgres/blob/master/src/backend/utils/adt/numeric.c, numeric_send
    """
    sign, decimal_digits, exponent = value.as_tuple()
    scale = max(0, -int(exponent))
    text = "".join(map(str, decimal_digits)) + "0" * max(0, int(exponent))
    text += "0" * (-scale % _DIGITS)
    text = text.zfill(-(-len(text) // _DIGITS) * _DIGITS)
    digits = [int(text[start : start + _DIGITS]) for start in range(0, len(text), _DIGITS)]
    weight = len(digits) - 1 - -(-scale // _DIGITS)
    return pack(f">hhHh{len(digits)}h", len(digits), weight, 0x4000 if sign else 0, scale, *digits)


_TEXT, _TIME, _PRICE = pa.string(), pa.timestamp("us", tz="UTC"), pa.decimal128(38, 9)
# How values of an Arrow type become those of a PostgreSQL type, whose oid is in
# https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat
# They are text, varchar, json, jsonb, timestamptz, numeric, int8, float8.
_ENCODERS: Mapping[tuple[pa.DataType, int], _Encode] = {
    **dict.fromkeys([(_TEXT, 25), (_TEXT, 1043), (_TEXT, 114)], _texts),
    (_TEXT, 3802): _jsonb,
    (_TIME, 1184): _times,
    (_PRICE, 1700): _decimals,
    (pa.int64(), 20): _numbers,
    (pa.float64(), 701): _numbers,
}
