"""Tests of which columns a vendor's fields get."""

from collections.abc import Mapping
from typing import Any

import pytest

from consumers.warehouse.fields import Fields, _normalized


def rows_of(*records: Mapping[str, Any], owners: dict[str, str] | None = None) -> list[dict[str, Any]]:
    fields = Fields({} if owners is None else owners, lambda *_: None)
    return [fields.rename(record) for record in records]


def columns(row: Mapping[str, Any]) -> list[str]:
    return [_normalized(name) for name in row]


@pytest.mark.parametrize(
    "names",
    [
        ("fooBar", "foo_bar"),
        ("na!e", "na%e"),
        ("Name", "name", "NAME"),
        ("", " "),
        ("名前", "電話", "שם"),
        ("a.b", "a-b", "a b", "a_b"),
        ("account", "Account", "vendor_account", "vendorAccount"),
        ("_dlt_id", "_dltId", "vendor_dlt_id"),
    ],
)
def test_each_of_the_names_that_fall_together_has_a_column_of_its_own(names: tuple[str, ...]) -> None:
    for order in (names, names[::-1]):
        (row,) = rows_of({name: f"value of {name}" for name in order})
        assert len(set(columns(row))) == len(names)
        assert sorted(row.values()) == sorted(f"value of {name}" for name in names)
        assert not {"account", "_dlt_id"} & set(columns(row))


def test_a_name_in_the_form_of_columns_keeps_its_own_beside_others() -> None:
    (row,) = rows_of({"ID": 2, "id": 1})
    assert row["id"] == 1


def test_what_owns_a_column_owns_it_in_later_records_and_syncs() -> None:
    owners: dict[str, str] = {}
    (first,) = rows_of({"fooBar": 1}, owners=owners)
    assert first == {"fooBar": 1}
    second, third = rows_of({"foo_bar": 2}, {"foo_bar": 3, "fooBar": 4}, owners=dict(owners))
    (other,) = second
    assert third == {other: 3, "fooBar": 4}
    assert other.startswith("foo_bar_")


@pytest.mark.parametrize(
    "nest",
    [lambda inner: {"meta": inner}, lambda inner: {"list": [inner]}, lambda inner: {"a": [[{"b": inner}]]}],
)
def test_fields_within_fields_are_told_apart_too(nest: Any) -> None:
    (row,) = rows_of(nest({"fooBar": "x", "foo_bar": "y", "_dlt_parent_id": "z"}))
    text = repr(row)
    assert all(text.count(f"'{value}'") == 1 for value in "xyz")
    assert "foo_bar_" in text


def test_rows_of_lists_have_no_field_where_dlt_has_its_own() -> None:
    (row,) = rows_of({"list": [{"_dlt_list_idx": 7, "_dlt_parent_id": 8}]})
    assert row == {"list": [{"vendor_dlt_list_idx": 7, "vendor_dlt_parent_id": 8}]}


def test_the_same_name_in_two_places_is_no_collision() -> None:
    record = {"a": {"name": 1}, "b": {"name": 2}, "name": 3, "list": [{"name": 4}]}
    assert rows_of(record) == [record]


def test_what_is_nested_deeper_than_tables_go_is_kept_as_text() -> None:
    deep: Any = {"at": "the bottom"}
    for level in range(40):
        deep = {"a": deep} if level % 2 else [deep]
    (row,) = rows_of({"deep": deep, "id": 1})
    assert row["id"] == 1
    assert "the bottom" in repr(row)
    depth = 0
    value: Any = row["deep"]
    while not isinstance(value, str):
        depth, value = depth + 1, next(iter(value.values())) if isinstance(value, dict) else value[0]
    assert depth < 15


def test_a_nul_that_postgresql_refuses_is_a_replacement_character() -> None:
    assert rows_of({"a": "x\0y", "b": ["\0"]}) == [{"a": "x\ufffdy", "b": ["\ufffd"]}]


def test_what_was_renamed_is_told_once_with_both_names() -> None:
    renames: list[tuple[str, str]] = []
    fields = Fields({}, lambda field, column: renames.append((field, column)))
    for _ in range(2):
        fields.rename({"meta": {"foo_bar": 1, "fooBar": 2}})
    ((field, column),) = renames
    assert field == "meta.fooBar"
    assert column.startswith("meta.foo_bar_")
