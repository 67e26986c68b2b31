"""Tests of what is loaded by values, with a PostgreSQL that has Redshift's types, and their limit of 64 KiB.

It has neither Redshift's COPY nor its SUPER: that is JSON here.
"""

from collections.abc import Iterator
from dataclasses import replace

import psycopg2
import pytest
from dlt.destinations.impl.redshift.factory import RedshiftTypeMapper

from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.postgres import PostgresServer
from tests.consumers.samples import TOPIC, sample
from tests.support.settings import Tree, with_section

pytestmark = pytest.mark.postgres

TYPES = """
DO $$ BEGIN
    CREATE DOMAIN super AS jsonb CHECK (octet_length(value::text) <= 65535);
    CREATE DOMAIN varchar_max AS text CHECK (octet_length(value) <= 65535);
    CREATE FUNCTION json_parse(text) RETURNS super LANGUAGE sql AS 'SELECT $1::jsonb::super';
EXCEPTION WHEN duplicate_object OR duplicate_function THEN NULL; END $$
"""
# As in Redshift, a backslash in a text escapes what follows.
OPTIONS = "?options=-cstandard_conforming_strings%3Doff"


@pytest.fixture
def redshift(
    postgres: PostgresServer, postgres_tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ConsumerHarness]:
    connection = psycopg2.connect(postgres.url)
    connection.autocommit = True
    connection.cursor().execute(TYPES)
    connection.close()
    monkeypatch.setitem(RedshiftTypeMapper.sct_to_unbound_dbt, "text", "varchar_max")
    tree = with_section(
        postgres_tree, "warehouse", destination="redshift", credentials=postgres.url + OPTIONS
    )
    with open_consumer(tree) as harness:
        yield harness


def test_json_is_loaded_as_json_and_read_back(redshift: ConsumerHarness) -> None:
    redshift.load(sample(1, note="a \\ backslash, a ' quote, a \u2028 line"))
    [[data]] = [[row["data"]] for row in redshift.rows("select data from booking_events")]
    assert data["data"]["note"] == "a \\ backslash, a ' quote, a \u2028 line"
    assert redshift.column("select data -> 'data' ->> 'id' from booking_events") == ["B1"]
    assert redshift.column("select jsonb_typeof(column_versions) from bookings") in (["object"], [None])


def test_the_newest_version_of_a_booking_stays_and_the_first_copy_of_an_event(
    redshift: ConsumerHarness,
) -> None:
    redshift.load(sample(1, at=10), sample(2, "B2"))
    first = redshift.rows("select id, position, loaded_at from booking_events order by id")
    redshift.load(sample(1, at=10), sample(3, at=5), sample(4, "B2", at=20))
    again = redshift.rows("select id, position, loaded_at from booking_events order by id")
    assert again[:2] == first
    assert [row["id"] for row in again] == ["E1", "E2", "E3", "E4"]
    assert redshift.rows("select booking_id, last_event_id from bookings order by booking_id") == [
        {"booking_id": "B1", "last_event_id": "E1"},
        {"booking_id": "B2", "last_event_id": "E4"},
    ]


def test_a_payload_that_is_too_long_keeps_its_row_and_its_booking(redshift: ConsumerHarness) -> None:
    redshift.load(sample(1, note="é" * 40_000), sample(2, "B2", at=1))
    [long, short] = redshift.rows("select * from booking_events order by id")
    assert long["cut"] == "data"
    assert long["data"]["cut"]["position"] == long["position"] == f"{TOPIC}/0/0"
    assert long["data"]["cut"]["bytes"] > 80_000
    assert short["cut"] is None
    assert redshift.column("select booking_id from bookings order by booking_id") == ["B1", "B2"]
    assert redshift.lag() == 0


def test_texts_of_a_booking_that_are_too_long_are_shortened(redshift: ConsumerHarness) -> None:
    name = "é" * 40_000
    redshift.load(sample(1, form_submission={"name": name, "email": "ada@example.com"}))
    [shortened] = redshift.column("select customer_name from bookings")
    assert name.startswith(shortened)
    assert 65_000 < len(shortened.encode()) <= 65_535


def test_a_dead_letter_that_is_too_long_is_cut(redshift: ConsumerHarness) -> None:
    record = replace(sample(1), data=b"no json" * 20_000).to_record()
    redshift.append_records(TOPIC, record)
    redshift.load(sample(2))
    [letter] = redshift.rows("select reason, cut, data_bytes from dead_letters")
    assert letter == {"reason": "unreadable_record", "cut": "data", "data_bytes": 140_000}


def test_what_is_nested_deeper_than_dlt_writes_becomes_text(redshift: ConsumerHarness) -> None:
    event = sample(1, deep=0)
    redshift.load(replace(event, data=event.data.replace(b'"deep":0', b'"deep":' + b"[" * 300 + b"]" * 300)))
    [depth] = redshift.column("select cast(data as text) from booking_events")
    assert depth.count("[") == depth.count("]") == 300
    assert redshift.column("select booking_id from bookings") == ["B1"]


def test_a_load_without_rows_works(redshift: ConsumerHarness) -> None:
    redshift.warehouse.load_nothing()
    redshift.load(sample(1))
    redshift.warehouse.load_nothing()
    assert redshift.column("select id from booking_events") == ["E1"]
