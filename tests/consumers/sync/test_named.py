"""Tests of resources without a list, of which only the named objects are read."""

import json
from collections.abc import Iterator
from pathlib import Path

import dlt
import pytest

from ingest.sources import bookeo_source
from tests.consumers.sync.harness import SyncHarness, syncing
from tests.support.settings import CommandRunner, Tree
from tests.support.simulated_vendor import Side, simulated


@pytest.fixture
def bookeo(tree: Tree, tmp_path: Path) -> Iterator[SyncHarness]:
    with syncing("bookeo", tree, tmp_path) as sync_harness:
        yield sync_harness


def command(sync_harness: SyncHarness, folder: Path) -> CommandRunner:
    """Return the command, with the secrets in the environment, as the settings demand."""
    account = dict(sync_harness.tree["accounts"]["sales"])
    secrets = {
        f"INGEST_ACCOUNTS__SALES__{name.upper()}": account.pop(name) for name in ("api_key", "secret_key")
    }
    return CommandRunner(folder, sync_harness.tree | {"accounts": {"sales": account}}, **secrets)


def holds(side: Side) -> list[str]:
    return [f"HOLD{number}" for number in side.meetings]


def test_holds_are_read_by_the_ids_that_are_named_and_those_that_are_gone_are_told(
    bookeo: SyncHarness, tmp_path: Path
) -> None:
    first, second = holds(bookeo.side)[:2]
    result = command(bookeo, tmp_path).run(
        "sync", "sales", "holds", "--id", first, "--id", "HOLD/gone", "--id", second, "--id", first, "--json"
    )
    (result,) = json.loads(result.out)
    assert (result["table"], result["rows"], result["problem"]) == ("bookeo__holds", 2, None)
    assert [path.rpartition("holds/")[2] for path in result["absent"]] == ["HOLD%2Fgone"]
    rows = bookeo.rows("bookeo__holds")
    assert sorted(row["id"] for row in rows) == sorted([first, second])
    assert {"account", "id", "expiration", "total_payable__amount"} <= set(rows[0])


def test_a_hold_that_is_read_again_replaces_its_row(bookeo: SyncHarness, tmp_path: Path) -> None:
    (first,) = holds(bookeo.side)[:1]
    for _ in range(2):
        assert command(bookeo, tmp_path).run("sync", "sales", "holds", "--id", first).code == 0
    assert len(bookeo.rows("bookeo__holds")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["holds"], "bookeo has no list of holds: name those you want with --id"),
        (["--id", "HOLD1"], "--id is for resources without a list; name one of them: holds"),
        (["customers", "--id", "HOLD1"], "--id is for resources without a list; name one of them: holds"),
    ],
)
def test_ids_without_such_a_resource_and_the_reverse_are_refused(
    bookeo: SyncHarness, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = command(bookeo, tmp_path).run("sync", "sales", *arguments)
    assert result.code == 2
    assert message in " ".join(result.err.split())
    assert bookeo.requests() == 0


def test_holds_are_not_among_what_is_read_without_being_named(bookeo: SyncHarness) -> None:
    assert "holds" not in bookeo.sync()


def test_the_source_reads_the_holds_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path))
    with simulated("bookeo", tmp_path) as side:
        keys = side.dialect.settings()
        ids = holds(side)[:3]
        source = bookeo_source(
            keys["secret_key"], keys["api_key"], side.server.api_url("sales"), hold_ids=ids
        )
        assert [hold["id"] for hold in source.with_resources("holds")] == ids
        pipeline = dlt.pipeline(
            "holds",
            pipelines_dir=str(tmp_path),
            destination=dlt.destinations.duckdb(str(tmp_path / "holds.duckdb")),
        )
        source = bookeo_source(
            keys["secret_key"], keys["api_key"], side.server.api_url("sales"), hold_ids=ids
        )
        pipeline.run(source.with_resources("holds")).raise_on_failed_jobs()
        with pipeline.sql_client() as client:
            assert [
                tuple(row)
                for row in client.execute_sql("select count(distinct id), count(*) from holds") or []
            ] == [(3, 3)]


def test_languages_are_keyed_by_their_tag(bookeo: SyncHarness) -> None:
    assert bookeo.sync("settings_languages")["settings_languages"].problem is None
    assert [(row["tag"], row["customers_default"]) for row in bookeo.rows("bookeo__settings_languages")] == [
        ("de-DE", False),
        ("en-US", True),
    ]
