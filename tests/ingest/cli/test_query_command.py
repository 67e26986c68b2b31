"""Tests of `ingest query` as scripts use it."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.consumers.harness import open_consumer
from tests.consumers.samples import sample
from tests.support.settings import CommandRunner, Tree, settings_tree


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandRunner]:
    """Return a command with a warehouse of two bookings, whose consumer is still open."""
    folder = tmp_path_factory.mktemp("query")
    tree: Tree = settings_tree(folder)
    with open_consumer(tree) as harness:
        harness.load(
            sample(
                1,
                "B1",
                starting_time="2026-05-09T10:00:00+02:00",
                owner="USR-1",
                payment_information={"amount_charged": 1250, "currency": "EUR"},
            ),
            sample(
                2,
                "B2",
                subject='a "quoted", é',
                payment_information={"amount_charged": 30, "currency": "JPY"},
            ),
        )
        yield CommandRunner(folder, tree, TZ="Asia/Tokyo")


def test_json_is_one_array_of_objects(command: CommandRunner) -> None:
    answer = command.run(
        "query",
        "--json",
        "select booking_id, starts_at, price, staff, customer_phone from bookings order by booking_id",
    )
    assert answer.code == 0, answer.err
    assert json.loads(answer.out) == [
        {
            "booking_id": "B1",
            "starts_at": "2026-05-09T08:00:00Z",
            "price": 12.5,
            "staff": ["USR-1"],
            "customer_phone": None,
        },
        {"booking_id": "B2", "starts_at": None, "price": 30, "staff": [], "customer_phone": None},
    ]
    assert len(answer.out.splitlines()) == 1


def test_json_columns_are_nested_and_other_types_are_plain(command: CommandRunner) -> None:
    sql = (
        "select data, count(*) over () as events, date '2026-05-09' as day, timestamp '2026-05-09 08:00' as"
        " naive, 0.1::decimal(9,2) as fine,"
        " 1e3::double as wide, true as yes, [1, 2] as numbers, time_ from (select *, time::timestamptz +"
        " interval 1 microsecond as time_ from booking_events"
        " where id = 'E1')"
    )
    row = json.loads(command.run("query", "--json", sql).out)[0]
    assert row.pop("data")["data"]["id"] == "B1"
    assert row == {
        "events": 1, "day": "2026-05-09", "naive": "2026-05-09T08:00:00", "fine": 0.1, "wide": 1000.0,
        "yes": True, "numbers": [1, 2],
        "time_": "2026-05-01T09:00:00.000001Z",
    }  # fmt: skip


def test_json_of_no_rows_is_an_empty_array(command: CommandRunner) -> None:
    assert command.run("query", "--json", "select * from bookings where false").out == "[]\n"


def test_csv_has_a_header_and_what_it_needs_quoted(command: CommandRunner) -> None:
    answer = command.run(
        "query",
        "--csv",
        "select booking_id, service_name, created_at, staff, location from bookings order by booking_id",
    )
    assert list(csv.reader(io.StringIO(answer.out))) == [
        ["booking_id", "service_name", "created_at", "staff", "location"],
        ["B1", "told by E1", "2026-05-01T09:00:00Z", '["USR-1"]', ""],
        ["B2", 'a "quoted", é', "2026-05-01T09:00:00Z", "[]", ""],
    ]


def test_for_people_it_is_a_table(command: CommandRunner) -> None:
    answer = command.run("query", "select booking_id, status from bookings order by booking_id")
    assert [
        word for word in ("booking_id", "status", "B1", "B2", "confirmed") if word not in answer.out
    ] == []


@pytest.mark.parametrize(
    "sql", ["selec 1", "select nothing from bookings", "select * from nowhere", "select 1/'a'"]
)
def test_what_the_database_cannot_answer_is_exit_code_2(command: CommandRunner, sql: str) -> None:
    answer = command.run("query", "--json", sql)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert "Traceback" not in answer.err


def test_statements_that_write_are_refused(command: CommandRunner) -> None:
    for sql in (
        "delete from bookings",
        "drop table bookings",
        "insert into bookings (booking_id) values ('B3')",
        "create table mine (a int)",
    ):
        assert command.run("query", sql).code == 2
    assert json.loads(command.run("query", "--json", "select count(*) as n from bookings").out) == [{"n": 2}]


def test_before_anything_was_loaded_it_is_exit_code_3(tmp_path: Path) -> None:
    command = CommandRunner(tmp_path, settings_tree(tmp_path))
    for prepare in (None, "check"):  # which makes the file, and no tables
        if prepare:
            command.run(prepare)
        answer = command.run("query", "select * from bookings")
        assert answer.code == 3
        assert "nothing has been loaded yet" in answer.err
