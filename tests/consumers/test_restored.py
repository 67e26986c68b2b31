"""A warehouse that is older than what the log's commits say, or another one: what it lacks is loaded again from the log."""

import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consumers.rows import Row
from ingest.errors import NothingLoaded
from ingest.event import Event
from ingest.log import Partition, Record
from ingest.loss import LOST
from tests.consumers.rig import Rig, Tree, changed, opened, until
from tests.consumers.samples import TOPIC, sample

EVENTS = "select id from booking_events order by id"
BOOKINGS = "select booking_id from bookings order by booking_id"


def load(rig: Rig, *numbers: int) -> None:
    """A load each."""
    for number in numbers:
        rig.load(sample(number, f"B{number}"))


def ids(*numbers: int) -> list[str]:
    return sorted(f"E{number}" for number in numbers)


def warehouse_file(rig: Rig) -> Path:
    file = rig.settings.warehouse.duckdb_file
    assert file
    return file


def restore(kept: Path, file: Path) -> None:
    shutil.copy(kept, file)
    assert file.stat().st_mtime_ns != kept.stat().st_mtime_ns
    file.with_name(f"{file.name}.wal").unlink(missing_ok=True)


def events(rig: Rig) -> list[object]:
    try:
        return rig.column(EVENTS)
    except NothingLoaded:
        return []


def catch_up(rig: Rig) -> list[dict[str, object]]:
    """Runs the loader as its process does, without anything new in the log; what it logged of reading again."""
    with capture_logs() as logged, rig.running():
        until(
            lambda: len(events(rig)) == rig.written(TOPIC) and not rig.lag_outside(),
            "all that is in the log is loaded",
        )
    return [dict(line) for line in logged if line["event"] == "warehouse.behind"]


def take_back(rig: Rig, lost: list[str]) -> None:
    """Makes the warehouse what a backup is that was made before these events were loaded, each with a load of its own."""
    loads = [mark.load for mark in rig.consumer.bookmarks()[Partition(TOPIC)].marks][: len(lost)]
    with rig.warehouse.turn(), rig.warehouse._pipeline.sql_client() as client:
        for table, column, values in (
            ("bookings", "last_event_id", lost),
            ("booking_events", "id", lost),
            ("_dlt_loads", "load_id", loads),
        ):
            marks = ", ".join(["%s"] * len(values))
            client.execute_sql(
                f"DELETE FROM {client.make_qualified_table_name(table)} WHERE {column} IN ({marks})", *values
            )


def test_a_warehouse_that_was_restored_while_no_consumer_ran_gets_what_it_lacks_when_one_starts(
    tree: Tree, tmp_path: Path
) -> None:
    with opened(tree) as rig:
        load(rig, 1, 2)
        shutil.copy(warehouse_file(rig), tmp_path / "kept")
        load(rig, 3, 4, 5)
    restore(tmp_path / "kept", warehouse_file(rig))
    with opened(tree) as rig:
        assert rig.column(EVENTS) == ids(1, 2)
        [line] = catch_up(rig)
        assert rig.column(EVENTS) == ids(1, 2, 3, 4, 5)
        assert rig.column(BOOKINGS) == ["B1", "B2", "B3", "B4", "B5"]
    assert (line["log_level"], line["topic"], line["deleted"]) == ("warning", TOPIC, 0)
    with opened(tree) as rig:
        assert catch_up(rig) == []


def test_a_warehouse_that_is_restored_under_a_consumer_gets_what_it_lacks_with_what_comes_next(
    rig: Rig, tmp_path: Path
) -> None:
    load(rig, 1, 2)
    shutil.copy(warehouse_file(rig), tmp_path / "kept")
    load(rig, 3, 4)
    restore(tmp_path / "kept", warehouse_file(rig))
    rig.append(sample(5, "B5"))
    assert len(catch_up(rig)) == 1
    assert rig.column(EVENTS) == ids(1, 2, 3, 4, 5)


def test_a_warehouse_that_is_restored_under_a_consumer_gets_what_it_lacks_though_nothing_comes(
    rig: Rig, tmp_path: Path
) -> None:
    load(rig, 1)
    shutil.copy(warehouse_file(rig), tmp_path / "kept")
    load(rig, 2, 3)
    restore(tmp_path / "kept", warehouse_file(rig))
    assert len(catch_up(rig)) == 1
    assert rig.column(EVENTS) == ids(1, 2, 3)


def test_a_warehouse_that_is_replaced_within_a_load_gets_what_that_wrote_though_nothing_comes(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(rig, 1)
    kept, write = Path(shutil.copy(warehouse_file(rig), tmp_path / "kept")), rig.warehouse.load
    load(rig, 2)

    def replaced_after(rows: Mapping[str, list[Row]]) -> str:
        load_id = write(rows)
        monkeypatch.setattr(rig.warehouse, "load", write)
        kept.replace(warehouse_file(rig))  # what was just written is in a file that no longer has a name
        return load_id

    monkeypatch.setattr(rig.warehouse, "load", replaced_after)
    rig.append(sample(3, "B3"))
    assert len(catch_up(rig)) == 1
    assert rig.column(EVENTS) == ids(1, 2, 3)


def test_what_a_restored_warehouse_lacks_is_found_at_any_destination(either_tree: Tree) -> None:
    with opened(either_tree) as rig:
        load(rig, 1, 2, 3, 4)
        take_back(rig, ids(3, 4))
    with opened(either_tree) as rig:
        catch_up(rig)
        assert rig.column(EVENTS) == ids(1, 2, 3, 4)
        assert rig.column(BOOKINGS) == ["B1", "B2", "B3", "B4"]


def test_a_warehouse_that_is_new_on_purpose_gets_all_that_the_log_has(tree: Tree, tmp_path: Path) -> None:
    with opened(tree) as rig:
        load(rig, 1, 2)
    with opened(changed(tree, "warehouse", credentials=f"{tmp_path}/another.duckdb")) as rig:
        [line] = catch_up(rig)
        assert rig.column(EVENTS) == ids(1, 2)
    assert line["log_level"] == "info"


def test_what_the_log_no_longer_has_either_is_told(tree: Tree, tmp_path: Path) -> None:
    with opened(tree) as rig:
        load(rig, 1, 2, 3)
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection, connection:
        connection.execute("DELETE FROM records WHERE offset < 2")
    warehouse_file(rig).unlink()
    with opened(tree) as rig, capture_logs() as logged, rig.running():
        until(lambda: events(rig) == ids(3), "what is left is loaded")
    [line] = [line for line in logged if line["event"] == "warehouse.behind"]
    assert (line["log_level"], line["deleted"]) == ("error", 2)
    assert "ingest reconcile --since" in line["why"]


def test_commits_of_an_older_version_are_trusted(tree: Tree, tmp_path: Path) -> None:
    with opened(tree) as rig:
        load(rig, 1, 2)
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection, connection:
        connection.execute("DELETE FROM bookmarks")
    warehouse_file(rig).unlink()
    with opened(tree) as rig:
        load(rig, 3)
        assert rig.column(EVENTS) == ids(3)


def test_a_batch_that_needs_no_load_depends_on_the_one_before(rig: Rig) -> None:
    load(rig, 1)
    before = rig.consumer.bookmarks()[Partition(TOPIC)].newest
    rig.append_records(TOPIC, Record("key", b"not an event"))
    rig.loader.step()
    after = rig.consumer.bookmarks()[Partition(TOPIC)].newest
    assert before
    assert after
    assert after.offset == before.offset + 1
    assert after.load == before.load != ""


def test_a_log_that_was_restored_is_told_and_its_accounts_are_to_be_reconciled(
    tree: Tree, tmp_path: Path
) -> None:
    account = {"vendor": "oncehub", "webhook_secrets": ["not-a-secret"]}
    with opened(tree | {"accounts": {"support": account}}) as rig:
        load(rig, 1)
        with (
            closing(sqlite3.connect(tmp_path / "log.db")) as source,
            closing(sqlite3.connect(tmp_path / "kept")) as target,
        ):
            source.backup(target)
        load(rig, 2, 3)
        (tmp_path / "kept").replace(tmp_path / "log.db")
        rig.append(sample(4, "B4"))
        with capture_logs() as logged, rig.running():
            until(lambda: rig.column(EVENTS) == ids(1, 2, 3, 4), "what came since is loaded")
            until(lambda: rig.lag_outside() == 0, "the note too is read")
        [line] = [line for line in logged if line["event"] == "log.changed"]
        assert (line["topic"], line["before"], line["read_again_from"]) == (TOPIC, 3, 1)
        with closing(rig.settings.build_log().reader(None, [rig.settings.audit_topic])) as reader:
            [note] = [Event.from_record(one.record) for one in reader.records()]
    assert (note.type, note.source) == (LOST, "/oncehub/support")
