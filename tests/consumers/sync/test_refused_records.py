"""Tests that a record that the destination refuses is left out and named, and all others are loaded."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ingest.errors import LoadRefused
from ingest.warehouse.destination import destination
from tests.consumers.sync.harness import SyncHarness, syncing
from tests.consumers.sync.test_left_out import listing
from tests.consumers.sync.test_sync_command import command
from tests.support.settings import Tree


def without_null(sync_harness: SyncHarness, table: str, column: str) -> None:
    """Add a constraint by hand: the table refuses rows with nothing in this column."""
    folder = sync_harness.settings.warehouse.work_dir
    pipeline = dlt.pipeline(
        "by_hand",
        pipelines_dir=folder,
        destination=destination(sync_harness.settings, "by_hand"),
        dataset_name=sync_harness.settings.warehouse.dataset,
    )
    with pipeline.sql_client() as client:
        name = client.make_qualified_table_name(table)
        client.execute_sql(f"ALTER TABLE {name} ALTER COLUMN {column} SET NOT NULL")
    pipeline.deactivate()


def contacts(nameless: set[int], count: int = 9) -> list[dict[str, Any]]:
    return [
        {"id": f"C{number}", "name": None if number in nameless else f"named {number}", "tags": ["a", "b"]}
        for number in range(count)
    ]


@pytest.mark.parametrize("nameless", [{0}, {3, 4}, {8}])
def test_the_records_to_blame_are_left_out_and_named_and_all_others_are_loaded(
    nameless: set[int], either_tree: Tree, tmp_path: Path
) -> None:
    with syncing("oncehub", either_tree, tmp_path) as sync_harness:
        listing(sync_harness, *contacts(set(), 2))
        assert sync_harness.sync("contacts")["contacts"].problem is None
        without_null(sync_harness, "oncehub__contacts", "name")
        listing(sync_harness, *contacts(nameless))
        synced = sync_harness.sync("contacts")["contacts"]
        assert (synced.problem, synced.rows) == (None, 9 - len(nameless))
        assert sorted(line.split(" ")[0] for line in synced.refused) == [
            f"C{number}" for number in sorted(nameless)
        ]
        loaded = {row["id"] for row in sync_harness.rows("oncehub__contacts")}
        assert loaded == {f"C{number}" for number in set(range(9)) - (nameless - {0, 1})}
        listing(sync_harness, *contacts(set()))
        synced = sync_harness.sync("contacts")["contacts"]
        assert (synced.problem, synced.rows, synced.refused) == (None, 9, ())


def test_a_record_that_is_refused_alone_is_named(tree: Tree, tmp_path: Path) -> None:
    with syncing("oncehub", tree, tmp_path) as sync_harness:
        listing(sync_harness, *contacts(set(), 1))
        sync_harness.sync("contacts")
        without_null(sync_harness, "oncehub__contacts", "name")
        listing(sync_harness, *contacts({0}, 1))
        synced = sync_harness.sync("contacts")["contacts"]
        assert (synced.problem, synced.rows, len(synced.refused)) == (None, 0, 1)


def test_a_table_that_refuses_all_is_a_refusal_as_ever(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.warehouse.sync_pipeline._MOST_REFUSED", 2)
    with syncing("oncehub", tree, tmp_path) as sync_harness:
        listing(sync_harness, *contacts(set(), 4))
        sync_harness.sync("contacts")
        without_null(sync_harness, "oncehub__contacts", "name")
        listing(sync_harness, *contacts({0, 1, 2, 3}, 4))
        synced = sync_harness.sync("contacts")["contacts"]
        assert isinstance(synced.problem, LoadRefused)
        assert synced.refused == ()


def test_what_was_refused_is_one_line_exit_code_1_and_in_the_json(tree: Tree, tmp_path: Path) -> None:
    with syncing("oncehub", tree, tmp_path) as sync_harness:
        listing(sync_harness, *contacts(set(), 2))
        sync_harness.sync("contacts")
        without_null(sync_harness, "oncehub__contacts", "name")
        listing(sync_harness, *contacts({1}, 2))
        result = command(sync_harness, tmp_path).run("sync", "sales", "contacts")
        assert result.code == 1, result
        assert "sales contacts: 1 left out, which the warehouse refuses: C1 (" in result.out
        results = json.loads(command(sync_harness, tmp_path).run("sync", "sales", "contacts", "--json").out)
        assert [len(result["refused"]) for result in results] == [1]


def test_a_refused_record_is_read_again_by_the_next_sync(tree: Tree, tmp_path: Path) -> None:
    """Bookings are read from the last change on, and that mark stays where it was."""
    with syncing("oncehub", tree, tmp_path) as sync_harness:
        assert sync_harness.sync("bookings")["bookings"].problem is None
        without_null(sync_harness, "oncehub__bookings", "subject")
        before = len(sync_harness.rows("oncehub__bookings"))
        changed = datetime.now(UTC) + timedelta(days=1)
        new = [
            {
                "id": f"BKNG-N{number}",
                "subject": None if number else "told",
                "last_updated_time": changed.isoformat(),
            }
            for number in range(2)
        ]
        queries: list[str] = []

        def fault(_: str, request: Request) -> Response | None:
            queries.append(request.url.query)
            return JSONResponse({"object": "list", "has_more": False, "data": new})

        sync_harness.side.server.faults[:] = [fault]
        first = sync_harness.sync("bookings")["bookings"]
        second = sync_harness.sync("bookings")["bookings"]
        assert [len(result.refused) for result in (first, second)] == [1, 1]
        assert queries[0] == queries[1]
        assert len(sync_harness.rows("oncehub__bookings")) == before + 1


def test_fields_keep_their_columns_after_a_refusal(tree: Tree, tmp_path: Path) -> None:
    with syncing("oncehub", tree, tmp_path) as sync_harness:
        listing(sync_harness, {"id": "C0", "name": "a"})
        sync_harness.sync("contacts")
        without_null(sync_harness, "oncehub__contacts", "name")
        listing(sync_harness, {"id": "C1", "name": "b", "fooBar": "camel"}, {"id": "C2"})
        assert len(sync_harness.sync("contacts")["contacts"].refused) == 1
        listing(
            sync_harness,
            {"id": "C3", "name": "c", "foo_bar": "snake"},
            {"id": "C4", "name": "d", "fooBar": "camel"},
        )
        assert sync_harness.sync("contacts")["contacts"].problem is None
        assert [row["foo_bar"] for row in sync_harness.rows("oncehub__contacts")].count("camel") == 2
