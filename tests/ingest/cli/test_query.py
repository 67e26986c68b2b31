"""`ingest query`, as people and scripts use it."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from ingest.log import Record
from ingest.log.sqlite import SqliteProducer
from tests.consumers.harness import open_consumer
from tests.consumers.samples import sample
from tests.support.polling import PATIENCE
from tests.support.processes import ingest, refused
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


TABLES = """
create schema ingest;
create table ingest.bookings (
  vendor text, account text, booking_id text, customer_name text, staff json,
  price decimal(38, 9), starts_at timestamptz,
  updated_at timestamptz, loaded_at timestamptz);
create table ingest.booking_events (id text);
create table ingest.dead_letters (id text);
insert into ingest.bookings values
  ('calendly', 'sales', 'one', 'Ada [/b] [online] "Hopper", 美咲', '["a", "b"]', 120.5,
   '2026-06-09 21:37:18.25+02', '2026-06-01 00:00:00+00', '2026-06-01 00:00:01+00'),
  ('bookeo', 'tours', 'two', null, '[]', 170, null, '2026-06-02 00:00:00+00', '2026-06-02 00:00:01+00');
insert into ingest.booking_events values ('first'), ('second'), ('third');
"""
ALL = "select booking_id, customer_name, staff, price, starts_at from bookings order by booking_id"
NAME = 'Ada [/b] [online] "Hopper", 美咲'


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a warehouse and a log in their usual places."""
    folder = tmp_path_factory.mktemp("loaded")
    (folder / "ingest.toml").touch()
    (folder / "data").mkdir()
    with duckdb.connect(str(folder / "data" / "warehouse.duckdb")) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(TABLES)
    with closing(SqliteProducer(folder / "data" / "log.db")) as producer:
        producer.append("bookings.calendly", [Record("a", b"1"), Record("b", b"2")]).result(PATIENCE)
    return folder


def test_an_answer_in_json_is_one_array_of_objects_with_instants_in_utc(loaded: Path) -> None:
    result = ingest(loaded, "query", "--json", ALL)
    assert (result.code, result.err) == (0, "")
    assert result.json == [
        {
            "booking_id": "one",
            "customer_name": NAME,
            "staff": ["a", "b"],
            "price": 120.5,
            "starts_at": "2026-06-09T19:37:18.250000Z",
        },
        {"booking_id": "two", "customer_name": None, "staff": [], "price": 170, "starts_at": None},
    ]


def test_no_rows_are_told_as_such(loaded: Path) -> None:
    assert ingest(loaded, "query", f"select * from ({ALL}) where false").out == (
        "no rows; columns: booking_id, customer_name, staff, price, starts_at\n"
    )


def test_an_answer_in_csv_has_a_header_line(loaded: Path) -> None:
    result = ingest(loaded, "query", "--csv", ALL)
    assert result.code == 0
    assert list(csv.reader(io.StringIO(result.out))) == [
        ["booking_id", "customer_name", "staff", "price", "starts_at"],
        ["one", NAME, '["a", "b"]', "120.50", "2026-06-09T19:37:18.250000Z"],
        ["two", "", "[]", "170.00", ""],
    ]


def test_people_see_a_table_with_every_character_as_it_is(loaded: Path) -> None:
    result = ingest(loaded, "query", ALL)
    assert (result.code, result.err) == (0, "")
    assert NAME in result.out
    assert "2026-06-09T19:37:18.250000Z" in result.out


def test_a_statement_that_is_wrong_is_refused(loaded: Path) -> None:
    assert "bookigns" in refused(ingest(loaded, "query", "select * from bookigns"))


def test_a_query_changes_nothing(loaded: Path) -> None:
    refused(ingest(loaded, "query", "delete from bookings"))
    with duckdb.connect(str(loaded / "data" / "warehouse.duckdb")) as connection:
        assert connection.execute("select count(*) from ingest.bookings").fetchall() == [(2,)]


def test_before_the_first_load_a_query_says_so_and_may_be_tried_again(tmp_path: Path) -> None:
    (tmp_path / "ingest.toml").touch()
    assert "nothing has been loaded yet" in refused(ingest(tmp_path, "query", "select 1"), code=3)
