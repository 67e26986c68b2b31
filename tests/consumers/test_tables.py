"""Tests of how rows get into tables and are found there: all of a load or nothing, by keys and by indexes."""

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from consumers.warehouse import duckdb_tables
from ingest.errors import WarehouseUnavailable
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import sample
from tests.support.settings import Tree

NEWEST = "select booking_id, last_event_id from bookings order by booking_id"
EVENTS = "select id from booking_events order by id"
KEYLESS = "select count(*) from {} where _lookup_key is null"


def execute(harness: ConsumerHarness, sql: str) -> None:
    """Run a statement in a turn, with the names of tables in place of `{bookings}` and `{booking_events}`."""
    with harness.warehouse.turn(), harness.warehouse._pipeline.sql_client() as client:
        names = {name: client.make_qualified_table_name(name) for name in ("bookings", "booking_events")}
        client.execute_sql(sql.format(**names))


def pairs(harness: ConsumerHarness, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in harness.rows(sql)]


def test_a_load_that_fails_at_its_end_has_written_nothing(
    either_harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    either_harness.load(sample(1, "B1"))
    either_harness.append(sample(2, "B1", at=60), sample(3, "B3"))

    def failing(_load_id: str) -> None:
        raise OSError("cut off")

    with monkeypatch.context() as cut:
        cut.setattr(either_harness.warehouse._tables._job_client, "complete_load", failing)  # type: ignore[attr-defined]
        with pytest.raises(WarehouseUnavailable, match="cut off"):
            either_harness.loader.step()
    assert pairs(either_harness, NEWEST) == [("B1", "E1")]
    assert either_harness.column(EVENTS) == ["E1"]
    either_harness.loader._start_over()
    either_harness.load()
    assert pairs(either_harness, NEWEST) == [("B1", "E2"), ("B3", "E3")]
    assert either_harness.column(EVENTS) == ["E1", "E2", "E3"]


def test_each_load_is_in_dlts_own_list(either_harness: ConsumerHarness) -> None:
    either_harness.load(sample(1, "B1"))
    loads = "select load_id, schema_name, status, schema_version_hash from _dlt_loads order by load_id desc"
    [newest, *_] = either_harness.rows(loads)
    assert newest["load_id"] == either_harness.loader._writer.load_id
    assert (newest["schema_name"], newest["status"]) == ("ingest", 0)
    hashes = either_harness.column("select version_hash from _dlt_version")
    assert newest["schema_version_hash"] in hashes


@pytest.mark.parametrize(
    "as_of_an_earlier_release",
    [
        "ALTER TABLE {bookings} DROP _lookup_key; ALTER TABLE {booking_events} DROP _lookup_key",
        "UPDATE {bookings} SET _lookup_key = NULL; UPDATE {booking_events} SET _lookup_key = NULL",
    ],
    ids=["no column", "no value"],
)
def test_rows_without_a_lookup_key_are_found_and_get_theirs(
    tree: Tree, as_of_an_earlier_release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duckdb_tables, "_KEYS_PER_TURN", 2)
    with open_consumer(tree) as before:
        before.load(*(sample(number, f"B{number}") for number in range(5)))
        for statement in as_of_an_earlier_release.split("; "):
            execute(before, statement)
    with open_consumer(tree) as harness:
        harness.load(sample(1, "B1"), sample(12, "B2", at=60))
        assert harness.column(EVENTS) == ["E0", "E1", "E12", "E2", "E3", "E4"]
        newest = [("B0", "E0"), ("B1", "E1"), ("B2", "E12"), ("B3", "E3"), ("B4", "E4")]
        assert pairs(harness, NEWEST) == newest
        for number in range(3):  # each fills the keys of two rows of a table
            harness.load(sample(20 + number, "B2", at=100 + number))
        assert [harness.column(KEYLESS.format(table)) for table in ("bookings", "booking_events")] == [
            [0],
            [0],
        ]
        assert pairs(harness, NEWEST) == [*newest[:2], ("B2", "E22"), *newest[3:]]


def test_ids_that_share_a_lookup_key_are_told_apart(
    harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duckdb_tables, "_key_of", lambda _column: "7::INTEGER")
    monkeypatch.setattr(duckdb_tables, "lookup_key", lambda _row_id: 7)
    harness.load(*(sample(number, f"B{number}") for number in range(4)))
    harness.load(sample(2, "B2"), sample(11, "B1", at=60))
    assert pairs(harness, NEWEST) == [("B0", "E0"), ("B1", "E11"), ("B2", "E2"), ("B3", "E3")]
    assert harness.column(EVENTS) == ["E0", "E1", "E11", "E2", "E3"]


@pytest.mark.postgres
def test_tables_have_indexes_also_where_an_earlier_release_made_them(postgres_tree: Tree) -> None:
    indexes = (
        "select indexname from pg_indexes where schemaname = '{}' and indexname like 'ingest_%' order by 1"
    )
    with open_consumer(postgres_tree) as before:
        before.load(sample(1, "B1"))
        made = before.column(indexes.format(before.settings.warehouse.dataset))
        assert made == [
            "ingest__dlt_loads_load_id", "ingest_booking_events_account_received_at",
            "ingest_booking_events_id", "ingest_booking_events_received_at", "ingest_booking_events_subject",
            "ingest_bookings_account_status_loaded_at", "ingest_bookings_booking_id",
            "ingest_bookings_created_at", "ingest_bookings_customer_name", "ingest_bookings_loaded_at",
            "ingest_bookings_search", "ingest_bookings_starts_at", "ingest_bookings_updated_at",
            "ingest_bookings_vendor_account_booking_id", "ingest_completeness_id", "ingest_dead_letters_id",
            "ingest_freshness_id", "ingest_gaps_id", "ingest_reconciliations_id",
        ]  # fmt: skip
        execute(before, "DROP INDEX ingest_bookings_booking_id")
    with open_consumer(postgres_tree) as harness:
        harness.load(sample(2, "B1", at=60))
        assert harness.column(indexes.format(harness.settings.warehouse.dataset)) == made
        assert pairs(harness, NEWEST) == [("B1", "E2")]


def test_the_row_of_a_booking_is_read_once(harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.load(sample(1, "B1"))
    select, rows = duckdb_tables.DuckDBTables.select, []

    def recording(tables: duckdb_tables.DuckDBTables, columns: Any, table: str, *where: Any) -> Iterator[Any]:
        for row in select(tables, columns, table, *where):
            rows.append(table)
            yield row

    monkeypatch.setattr(duckdb_tables.DuckDBTables, "select", recording)
    harness.load(sample(2, "B1", at=60))  # which says nothing about some columns
    assert rows.count("bookings") == 1
    assert pairs(harness, NEWEST) == [("B1", "E2")]


@pytest.mark.parametrize("row_id", ["", "B1", "ä€𝄞", "https://api.calendly.com/scheduled_events/1" * 20])
def test_the_lookup_key_of_an_id_is_the_one_that_duckdb_computes(row_id: str) -> None:
    with duckdb.connect() as connection:
        stored = connection.execute(f"SELECT {duckdb_tables._key_of('$1')}", [row_id]).fetchall()
    assert stored == [(duckdb_tables.lookup_key(row_id),)]


def compressions(harness: ConsumerHarness) -> set[str]:
    """Return the methods by which payloads are compressed, without the one for equal values."""
    sql = "select compression from pragma_storage_info('booking_events') where column_name = 'data'"
    return {method.lower() for method in harness.column(sql)} - {"constant"}


def test_payloads_are_compressed_by_zstandard(harness: ConsumerHarness) -> None:
    harness.load(*(sample(number) for number in range(100)))
    assert compressions(harness) == {"zstd"}


def test_a_table_with_rows_keeps_its_payloads(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier, open_consumer(tree) as harness:
        earlier.setattr(duckdb_tables.DuckDBTables, "_compress_payloads", lambda _: None)
        harness.load(sample(1))
    with open_consumer(tree) as harness:
        harness.load(sample(2))
        assert harness.column("select count(data) from booking_events") == [2]
        assert "zstd" not in compressions(harness)
