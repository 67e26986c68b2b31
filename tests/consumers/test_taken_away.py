"""Tests of a warehouse of which tables are taken away: they are made again, and loads go on."""

from collections.abc import Callable

import pytest

from consumers.rows import TABLES
from tests.consumers.harness import ConsumerHarness, Tree, opened
from tests.consumers.samples import sample

DATASET = "select table_name from information_schema.tables where table_schema = '{}'"


def tables(harness: ConsumerHarness) -> set[str]:
    return set(harness.column(DATASET.format(harness.settings.warehouse.dataset)))


def delete_file(harness: ConsumerHarness) -> None:
    file = harness.settings.warehouse.duckdb_file
    assert file
    file.unlink()


def drop_all(harness: ConsumerHarness) -> None:
    with harness.warehouse.turn(), harness.warehouse._pipeline.sql_client() as client:
        client.drop_dataset()


@pytest.mark.parametrize("take_away", [delete_file, drop_all])
def test_while_a_consumer_runs(
    harness: ConsumerHarness, take_away: Callable[[ConsumerHarness], None]
) -> None:
    harness.warehouse.prepare()
    harness.load(sample(1))
    take_away(harness)
    harness.load(sample(2))
    assert {table.name for table in TABLES} <= tables(harness)
    assert harness.column("select count(*) from bookings") == [1]


@pytest.mark.postgres
def test_while_a_consumer_runs_at_a_server(postgres_harness: ConsumerHarness) -> None:
    test_while_a_consumer_runs(postgres_harness, drop_all)


@pytest.mark.parametrize("table", [table.name for table in TABLES])
def test_a_dropped_table_is_there_again_when_the_consumer_starts(either_tree: Tree, table: str) -> None:
    with opened(either_tree) as before:
        before.warehouse.prepare()
        before.load(sample(1))
        with before.warehouse.turn(), before.warehouse._pipeline.sql_client() as client:
            client.execute_sql(f"DROP TABLE {client.make_qualified_table_name(table)}")
    with opened(either_tree) as again:
        again.warehouse.prepare()
        assert table in tables(again)
        again.load(sample(2))
