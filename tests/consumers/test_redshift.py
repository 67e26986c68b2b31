"""Tests of what is loaded by values, with a PostgreSQL that has Redshift's types, and their limit of 64 KiB.

It has neither Redshift's COPY nor its SUPER: that is JSON here.
"""

import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pyarrow as pa
import pytest
from dlt.destinations.impl.redshift.factory import RedshiftTypeMapper
from dlt.destinations.impl.redshift.redshift import HINT_TO_REDSHIFT_ATTR, RedshiftSqlClient
from pydantic import ValidationError
from s3fs import S3FileSystem

from consumers.booking_rows import Row
from consumers.loader import Loader
from consumers.rows import plain_rows
from consumers.warehouse import tables
from consumers.warehouse.rights import _check_rate, check_warehouse
from ingest.destinations import DESTINATIONS, REDSHIFT
from ingest.errors import ConfigurationError
from ingest.readiness import State
from ingest.settings import Settings
from ingest.warehouse.destination import destination, reading_client
from ingest.warehouse.query import query
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.postgres import PostgresServer
from tests.consumers.samples import TOPIC, moment, sample
from tests.destinations.lakes import running_s3
from tests.destinations.redshift import OPTIONS, TYPES
from tests.support.settings import Tree, with_section

pytestmark = pytest.mark.postgres


_COPY = re.compile(r"COPY (?P<table>\S+)\s+FROM 's3://(?P<object>[^']+)'\s+FORMAT AS JSON 'auto'")


@pytest.fixture
def redshift_tree(postgres: PostgresServer, postgres_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Tree:
    connection = psycopg2.connect(postgres.url)
    connection.autocommit = True
    connection.cursor().execute(TYPES)
    connection.close()
    monkeypatch.setitem(RedshiftTypeMapper.sct_to_unbound_dbt, "text", "varchar_max")
    monkeypatch.delitem(HINT_TO_REDSHIFT_ATTR, "sort")
    return with_section(
        postgres_tree, "warehouse", destination="redshift", credentials=postgres.url + OPTIONS
    )


@pytest.fixture
def redshift(redshift_tree: Tree) -> Iterator[ConsumerHarness]:
    with open_consumer(redshift_tree) as harness:
        yield harness


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3FileSystem]:
    """Run an S3 with a bucket `lake`, from which COPY takes lines of JSON."""
    execute = RedshiftSqlClient.execute_sql
    with running_s3(tmp_path) as store:
        for name, value in store.environ.items():
            monkeypatch.setenv(name, value)
        url = store.environ["DESTINATION__FILESYSTEM__CREDENTIALS__ENDPOINT_URL"]
        files = S3FileSystem(key="any", secret="any", endpoint_url=url, skip_instance_cache=True)

        def copy_or_execute(client: RedshiftSqlClient, sql: str, *arguments: Any, **options: Any) -> Any:
            if match := _COPY.search(sql):
                lines = files.cat_file(match["object"]).decode().strip().split("\n")
                assert not re.search(r'"[^"]{65536,}"', "\n".join(lines)), "no text in SUPER is so long"
                rows = f"jsonb_populate_recordset(NULL::{match['table']}, %s)"
                sql = f"INSERT INTO {match['table']} SELECT * FROM {rows}"
                arguments = (f"[{','.join(lines)}]",)
            return execute(client, sql, *arguments, **options)

        monkeypatch.setattr(RedshiftSqlClient, "execute_sql", copy_or_execute)
        yield files


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


def test_a_table_of_which_no_row_is_new_does_not_change_the_schema(redshift: ConsumerHarness) -> None:
    redshift.load(sample(1), sample(2, "B2"))
    versions = redshift.column("select count(*) from _dlt_version")
    with reading_client(redshift.settings) as client:
        client.execute_sql("DELETE FROM bookings WHERE booking_id = 'B1'")
    redshift.load(sample(1))
    assert redshift.column("select booking_id from bookings order by booking_id") == ["B1", "B2"]
    assert redshift.column("select count(*) from _dlt_version") == versions


def test_rows_of_any_time_are_found_by_merges_with_bounds(redshift: ConsumerHarness) -> None:
    long_ago, today = moment(-10_000_000), moment(100)
    redshift.load(sample(1, received_at=long_ago), sample(2, "B2", received_at=long_ago))
    with reading_client(redshift.settings) as client:
        client.execute_sql("UPDATE bookings SET first_seen_at = NULL WHERE booking_id = 'B2'")
    again = [sample(1, received_at=today), sample(3, at=9, received_at=today)]
    redshift.load(*again, sample(4, "B2", at=9, received_at=today), sample(5, "B3", received_at=today))
    assert redshift.rows("select booking_id, last_event_id from bookings order by booking_id") == [
        {"booking_id": "B1", "last_event_id": "E3"},
        {"booking_id": "B2", "last_event_id": "E4"},
        {"booking_id": "B3", "last_event_id": "E5"},
    ]
    assert (
        redshift.rows("select id, received_at from booking_events order by id")[0]["received_at"] == long_ago
    )
    assert redshift.column("select id from booking_events order by id") == ["E1", "E2", "E3", "E4", "E5"]


def test_a_payload_that_is_too_long_keeps_its_row_and_its_booking(redshift: ConsumerHarness) -> None:
    redshift.load(sample(1, note="é" * 40_000), sample(2, "B2", at=1))
    [long, short] = redshift.rows("select * from booking_events order by id")
    assert long["cut"] == "data"
    assert long["data"]["cut"]["position"] == long["position"] == f"{TOPIC}/0/0"
    assert long["data"]["cut"]["bytes"] > 80_000
    assert short["cut"] is None
    assert redshift.column("select booking_id from bookings order by booking_id") == ["B1", "B2"]
    assert redshift.lag() == 0


def test_a_long_payload_is_kept_whole_by_a_staging_bucket(redshift_tree: Tree, bucket: S3FileSystem) -> None:
    long = [f"é {number}" for number in range(20_000)]
    staged = with_section(redshift_tree, "warehouse", staging="s3://lake/staged")
    with open_consumer(staged) as redshift:
        redshift.load(sample(1, note=long), sample(2, "B2", note="é" * 40_000))
        [whole, cut] = redshift.rows("select data, cut from booking_events order by id")
        assert (whole["data"]["data"]["note"], whole["cut"]) == (long, None)
        assert (list(cut["data"]), cut["cut"]) == (["cut"], "data")
        assert redshift.column("select booking_id from bookings order by booking_id") == ["B1", "B2"]
        finding, *_ = check_warehouse(redshift.settings)
        assert finding.state is State.OK, finding
    bucket.invalidate_cache()
    assert bucket.ls("lake/staged/ingest") == [f"lake/staged/ingest/{staged['warehouse']['dataset']}"]


@pytest.mark.parametrize(
    ("destination", "staging", "remedy"),
    [
        ("redshift", "gs://bucket", "use s3://"),
        ("bigquery", "s3://bucket", "use gs://"),
        ("snowflake", "/srv/staging", "use s3://… or gs://… or az://…"),
        ("duckdb", "s3://bucket", "leave it out"),
        ("filesystem", "s3://bucket", "leave it out"),
    ],
)
def test_a_staging_bucket_that_is_of_no_use_is_refused(destination: str, staging: str, remedy: str) -> None:
    with pytest.raises(ValidationError, match=remedy):
        Settings.model_validate({"warehouse": {"destination": destination, "staging": staging}})


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


def test_check_tries_it_in_a_scratch_dataset_which_it_drops(redshift: ConsumerHarness) -> None:
    before = datasets(redshift)
    [finding, rate, interval] = check_warehouse(redshift.settings)
    assert finding.state is State.OK, finding
    assert interval.state is State.WARNING
    assert interval.detail.startswith("consumer.linger is 10ms, and the cluster commits")
    assert "Redshift takes rows and returns them unchanged" in finding.detail
    assert rate.detail == "0 loads in the last 24 hours; 86,400 a day are possible at this interval"
    assert datasets(redshift) == before
    redshift.load(sample(1))
    [rate] = _check_rate(redshift.settings, finding)
    assert re.match("[1-9][0-9]* loads in the last 24 hours", rate.detail)


def test_check_tells_what_comes_back_changed(
    redshift: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def an_hour_late(name: str, rows: pa.Table) -> list[Row]:
        return [
            row | {"starts_at": moment(0)} if "starts_at" in row else row for row in plain_rows(name, rows)
        ]

    monkeypatch.setattr(tables, "plain_rows", an_hour_late)
    [finding, *_] = check_warehouse(redshift.settings)
    assert finding.state is State.FAILED
    assert "values come back changed in starts_at" in finding.detail


def test_check_tells_that_versions_become_rows_of_their_own(
    redshift: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_merge", lambda *_: {"disposition": "append", "strategy": ""})
    [finding, *_] = check_warehouse(redshift.settings)
    assert finding.state is State.FAILED
    assert "two versions of a booking are 2 rows" in finding.detail
    assert not [name for name in datasets(redshift) if "trial" in name]


def test_a_destination_that_is_not_tested_is_tried_at_the_start(
    redshift: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DESTINATIONS, "redshift", replace(REDSHIFT, is_tested=False))
    trusted = redshift.settings.warehouse.model_copy(update={"untested": True})
    settings = redshift.settings.model_copy(update={"warehouse": trusted})
    loader = Loader(settings, redshift.consumer, redshift.producer, redshift.warehouse)
    with monkeypatch.context() as wrong:
        wrong.setattr(tables, "plain_rows", lambda name, rows: plain_rows(name, rows)[:0])
        with pytest.raises(ConfigurationError, match="0 rows that can be read"):
            loader.run(threading.Event())
    loader._prepare()
    loader.close()
    assert query(settings, "select count(*) from bookings").rows == [(0,)]


def test_a_destination_that_is_not_tested_is_refused(postgres_tree: Tree) -> None:
    settings = Settings.model_validate(
        with_section(postgres_tree, "warehouse", destination="sqlalchemy", credentials="mysql://h/d")
    )
    with pytest.raises(ConfigurationError, match=r"set warehouse\.untested = true"):
        destination(settings)


@pytest.mark.parametrize(
    ("name", "url", "remedy"),
    [
        ("redshift", "redshift://u:p@h:5439/d", "write postgresql://"),
        ("sqlalchemy", "sqlite:///data/w.db", "use DuckDB"),
        ("sqlalchemy", "sqlite+pysqlite:///data/w.db", "use DuckDB"),
    ],
)
def test_a_url_that_cannot_work_is_refused_with_what_to_write(
    postgres_tree: Tree, name: str, url: str, remedy: str
) -> None:
    tree = with_section(postgres_tree, "warehouse", destination=name, credentials=url, untested=True)
    with pytest.raises(ConfigurationError, match=remedy):
        destination(Settings.model_validate(tree))


def datasets(harness: ConsumerHarness) -> set[str]:
    with reading_client(harness.settings) as client:
        return {name for (name,) in client.execute_sql("SELECT nspname FROM pg_namespace") or ()}
