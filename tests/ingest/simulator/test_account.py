"""The comparison finds every kind of fault, so that finding none means something."""

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from ingest.simulator.account import Difference, differences
from tests.support.accounts import BEGINNING, SIMULATED, advance, new_world

WORLD = new_world(3)
advance(WORLD, [timedelta(minutes=10)] * 600)

Rows = list[dict[str, Any]]


def right_rows() -> Rows:
    """Return the rows of a right warehouse."""
    return [
        {"vendor": SIMULATED[account].vendor, "account": account, **SIMULATED[account].expected(meeting)}
        for account, meeting in WORLD.truth()
    ]


def differences_in(rows: Rows) -> list[Difference]:
    return differences(WORLD, SIMULATED, rows)


def wrong_value(value: Any) -> Any:
    """Return a wrong value that differs as little as possible."""
    if isinstance(value, datetime):
        return value + timedelta(microseconds=1)
    if isinstance(value, Decimal):
        return value + Decimal("0.01")
    if isinstance(value, dict):
        return {**value, "another": "value"}
    return value + (["another"] if isinstance(value, list) else 1 if isinstance(value, int) else " ")


def every_column() -> list[tuple[str, str]]:
    """Return every column that is compared, of every account."""
    return sorted(
        {
            (row["account"], column)
            for row in right_rows()
            for column in row
            if column not in {"vendor", "account", "booking_id"}
        }
    )


def test_a_right_warehouse_has_no_differences_in_any_order_of_rows() -> None:
    assert len(right_rows()) > 100
    assert differences_in(right_rows()) == differences_in(right_rows()[::-1]) == []


def test_the_same_amount_and_the_same_instant_written_otherwise_are_no_difference() -> None:
    rows = right_rows()
    for row in rows:
        row["price"] = row["price"] and row["price"].quantize(Decimal("1e-9"))
        row["starts_at"] = row["starts_at"].astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert differences_in(rows) == []


def test_a_missing_booking_is_found() -> None:
    rows = right_rows()
    gone = rows.pop(5)
    assert differences_in(rows) == [Difference(gone["account"], gone["booking_id"], "", "a booking", "")]


def test_an_empty_warehouse_misses_them_all() -> None:
    assert len(differences_in([])) == len(WORLD.truth())


def test_a_booking_too_many_is_found() -> None:
    never = right_rows()[5] | {"booking_id": "never-was"}
    assert differences_in([*right_rows(), never]) == [
        Difference(never["account"], "never-was", "", "", "a booking that never was")
    ]


def test_a_booking_marked_gone_is_right_when_it_is_no_longer_in_the_world() -> None:
    rows = [row | {"gone_at": None} for row in right_rows()]
    gone = right_rows()[5] | {"booking_id": "deleted-by-its-vendor", "gone_at": BEGINNING}
    assert differences_in([*rows, gone]) == []
    gone["gone_at"] = None
    assert differences_in([*rows, gone]) == [
        Difference(gone["account"], gone["booking_id"], "", "", "a booking that never was")
    ]


def test_a_booking_marked_gone_is_wrong_while_it_is_in_the_world() -> None:
    rows = right_rows()
    rows[5]["gone_at"] = BEGINNING
    assert differences_in(rows) == [
        Difference(rows[5]["account"], rows[5]["booking_id"], "gone_at", "None", str(BEGINNING))
    ]


def test_a_booking_with_two_rows_is_found() -> None:
    rows = right_rows()
    assert differences_in([*rows, rows[5]]) == [
        Difference(rows[5]["account"], rows[5]["booking_id"], "", "one row", "2 rows")
    ]


@pytest.mark.parametrize("column", ["vendor", "account"])
def test_a_booking_under_another_name_is_both_missing_and_too_many(column: str) -> None:
    rows = right_rows()
    rows[5][column] = "other"
    assert [difference.actual for difference in differences_in(rows)] == ["", "a booking that never was"]


@pytest.mark.parametrize(("account", "column"), every_column())
def test_a_wrong_value_is_found_in_every_column(account: str, column: str) -> None:
    rows = right_rows()
    row = next((row for row in rows if row["account"] == account and row.get(column) is not None), None)
    if row is None:
        row = next(row for row in rows if row["account"] == account)
    right, row[column] = row[column], "something" if row[column] is None else wrong_value(row[column])
    assert differences_in(rows) == [
        Difference(account, row["booking_id"], column, str(right), str(row[column]))
    ]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("customer_name", str),
        ("starts_at", datetime),
        ("price", Decimal),
        ("staff", list),
        ("participants", int),
    ],
)
def test_a_value_that_was_lost_is_found_whatever_its_kind(column: str, kind: type) -> None:
    rows = right_rows()
    row = next(row for row in rows if isinstance(row.get(column), kind))
    right, row[column] = row[column], None
    assert differences_in(rows) == [Difference(row["account"], row["booking_id"], column, str(right), "None")]


def test_every_difference_of_every_booking_is_told() -> None:
    rows = right_rows()
    rows[3]["status"] = rows[3]["customer_name"] = rows[4]["status"] = "wrong"
    assert [(difference.booking_id, difference.column) for difference in differences_in(rows)] == [
        (rows[3]["booking_id"], "status"),
        (rows[3]["booking_id"], "customer_name"),
        (rows[4]["booking_id"], "status"),
    ]
