"""Commands that read the warehouse and the log."""

import csv
import io
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from ingest.log import Record
from ingest.log.sqlite import SqliteProducer
from tests.support.polling import PATIENCE
from tests.support.processes import ingest, refused

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
