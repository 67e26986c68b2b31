"""Tests of rows as PostgreSQL's COPY takes them: both formats make the same rows."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg2
import pyarrow as pa
import pytest

from consumers.rows import SCHEMAS, TABLES_BY_NAME, arrow_table
from consumers.warehouse import copy_format
from consumers.warehouse.copy_format import copy_file
from tests.consumers.harness import ConsumerHarness
from tests.consumers.postgres import PostgresServer
from tests.consumers.samples import sample

pytestmark = pytest.mark.postgres

_SQL_TYPES = {
    pa.string(): "varchar",
    pa.int64(): "bigint",
    pa.float64(): "double precision",
    pa.timestamp("us", tz="UTC"): "timestamptz",
    pa.decimal128(38, 9): "numeric(38,9)",
}
# Of each type what is unusual, beside nothing.
_VALUES: dict[pa.DataType, list[Any]] = {
    pa.string(): ["", "a\tb\\n\r\n\"'", "Zoë \U0001f600\x1f", "x" * 100_000, "\\N", "NULL"],
    pa.int64(): [0, 1, -1, 2**63 - 1, -(2**63)],
    pa.float64(): [0.0, -0.0, 1.5, -1e300, 5e-324, float("inf"), float("nan")],
    pa.timestamp("us", tz="UTC"): [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2000, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
    pa.decimal128(38, 9): [
        Decimal(text)
        for text in (
            *("0", "-0.000000001", "0.0001", "0.00001", "1", "-12.5", "9999", "10000", "10000.0001"),
            *("120000", "99999999999999999999999999999.999999999", "-30000000000.1", "100.050000000"),
        )
    ],
}
_JSON = ['{"a": [1, {"b": "\\u00e9\\n"}], "c": 1.50}', "[]", "null", '"\\""']


@pytest.fixture
def cursor(postgres: PostgresServer) -> Iterator[Any]:
    with closing(psycopg2.connect(postgres.url)) as connection, connection.cursor() as cursor:
        yield cursor


@pytest.fixture(autouse=True)
def _binary_for_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_format, "_FEW_ROWS", -1)


def copied(cursor: Any, rows: pa.Table, sql_types: list[str], *, binary: bool = True) -> list[Any]:
    """Return rows as text after they were copied into a table with columns of these types."""
    columns = ", ".join(f"{name} {sql}" for name, sql in zip(rows.column_names, sql_types, strict=True))
    cursor.execute(f"DROP TABLE IF EXISTS copied; CREATE TEMP TABLE copied ({columns})")
    cursor.execute("SELECT * FROM copied")
    types = [column.type_code for column in cursor.description]
    form, file = copy_file(rows, types if binary else [0] * len(types))
    assert form == ("binary" if binary else "csv")
    cursor.copy_expert(f"COPY copied FROM STDIN WITH (FORMAT {form})", file)
    as_text = ", ".join(f"{name}::text" for name in rows.column_names)
    cursor.execute(f"SELECT {as_text} FROM copied ORDER BY ctid")
    return list(cursor.fetchall())


@pytest.mark.parametrize(("arrow_type", "sql_type"), _SQL_TYPES.items(), ids=str)
def test_each_type_is_the_same_in_both_formats(cursor: Any, arrow_type: pa.DataType, sql_type: str) -> None:
    values = [None, *_VALUES[arrow_type], None, *reversed(_VALUES[arrow_type])]
    for some in (values, values[1:-3], [None], [values[1]], []):
        rows = pa.table({"a": pa.array(some, arrow_type), "b": pa.array(some[::-1], arrow_type)})
        in_binary = copied(cursor, rows, [sql_type] * 2)
        assert in_binary == copied(cursor, rows, [sql_type] * 2, binary=False)
        assert len(in_binary) == len(some)
        part = copied(cursor, rows.slice(1), [sql_type] * 2)  # which does not begin where its buffers do
        assert part == in_binary[1:]


@pytest.mark.parametrize("sql_type", ["json", "jsonb", "text", "varchar(200)"])
def test_texts_fit_each_type_that_holds_them(cursor: Any, sql_type: str) -> None:
    rows = pa.table({"a": pa.array([*_JSON, None], pa.string())})
    assert copied(cursor, rows, [sql_type]) == copied(cursor, rows, [sql_type], binary=False)


@pytest.mark.parametrize("table", SCHEMAS)
def test_whole_tables_are_the_same_in_both_formats(cursor: Any, table: str) -> None:
    json = TABLES_BY_NAME[table].json
    sql_types = ["jsonb" if field.name in json else _SQL_TYPES[field.type] for field in SCHEMAS[table]]
    rows = arrow_table(
        table,
        [
            {
                field.name: (
                    (_JSON if field.name in json else _VALUES[field.type])[number % 4]
                    if (number + place) % 3
                    else None
                )
                for place, field in enumerate(SCHEMAS[table])
            }
            for number in range(12)
        ],
    )
    several = pa.concat_tables([rows, rows.slice(3, 5), rows])
    assert copied(cursor, several, sql_types) == copied(cursor, several, sql_types, binary=False)


@pytest.mark.parametrize("sql_type", ["double precision", "integer", "text", "numeric"])
def test_a_column_of_another_type_makes_all_of_it_csv(cursor: Any, sql_type: str) -> None:
    rows = pa.table({"a": pa.array([1, 2], pa.int64()), "b": pa.array(["x", None], pa.string())})
    assert copied(cursor, rows, [sql_type, "text"], binary=False) == [("1", "x"), ("2", None)]
    cursor.execute("SELECT * FROM copied")
    assert copy_file(rows, [column.type_code for column in cursor.description])[0] == "csv"


def test_many_rows_are_loaded_whatever_type_a_column_got_meanwhile(postgres_harness: ConsumerHarness) -> None:
    events = [sample(number, f"B{number}", number) for number in range(60)]
    postgres_harness.load(*events[:30])
    with postgres_harness.warehouse._pipeline.sql_client() as client:
        bookings = client.make_qualified_table_name("bookings")
        client.execute_sql(f"ALTER TABLE {bookings} ALTER COLUMN participants TYPE double precision")
    postgres_harness.load(*events[30:])
    rows = postgres_harness.rows("select booking_id, service_name, participants from bookings")
    assert {row["booking_id"]: row["service_name"] for row in rows} == {
        f"B{number}": f"told by E{number}" for number in range(60)
    }
    assert {row["participants"] for row in rows} == {1.0}
