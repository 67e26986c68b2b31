"""Tests of a warehouse of which tables are taken away: they are made again, and loads go on."""

from collections.abc import Callable

import pytest

from consumers.rows import TABLES
from tests.consumers.rig import Rig, Tree, opened
from tests.consumers.samples import sample

DATASET = "select table_name from information_schema.tables where table_schema = '{}'"


def tables(rig: Rig) -> set[str]:
    return set(rig.column(DATASET.format(rig.settings.warehouse.dataset)))


def delete_file(rig: Rig) -> None:
    file = rig.settings.warehouse.duckdb_file
    assert file
    file.unlink()


def drop_all(rig: Rig) -> None:
    with rig.warehouse.turn(), rig.warehouse._pipeline.sql_client() as client:
        client.drop_dataset()


@pytest.mark.parametrize("take_away", [delete_file, drop_all])
def test_while_a_consumer_runs(rig: Rig, take_away: Callable[[Rig], None]) -> None:
    rig.warehouse.prepare()
    rig.load(sample(1))
    take_away(rig)
    rig.load(sample(2))
    assert {table.name for table in TABLES} <= tables(rig)
    assert rig.column("select count(*) from bookings") == [1]


@pytest.mark.postgres
def test_while_a_consumer_runs_at_a_server(postgres_rig: Rig) -> None:
    test_while_a_consumer_runs(postgres_rig, drop_all)


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
