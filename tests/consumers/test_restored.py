"""Tests of a warehouse that lacks what was committed, or tables: it is made and loaded again from the log."""

import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from structlog.testing import capture_logs

from consumers.booking_rows import Row
from consumers.positions import report_changes
from consumers.rows import TABLES
from ingest.errors import NothingLoaded
from ingest.event import LOST, Cause, Event
from ingest.log import Partition, PositionChange, Record
from ingest.times import parse_instant
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import TOPIC, sample
from tests.support.polling import wait_for
from tests.support.settings import Tree, with_section

EVENTS = "select id from booking_events order by id"
ACCOUNTS = {"accounts": {"support": {"vendor": "oncehub", "webhook_secrets": ["not-a-secret"]}}}
BOOKINGS = "select booking_id from bookings order by booking_id"


def load_each(harness: ConsumerHarness, *numbers: int) -> None:
    """Load each event in a load of its own."""
    for number in numbers:
        harness.load(sample(number, f"B{number}"))


def ids(*numbers: int) -> list[str]:
    return sorted(f"E{number}" for number in numbers)


def warehouse_file(harness: ConsumerHarness) -> Path:
    file = harness.settings.warehouse.duckdb_file
    assert file
    return file


def restore(copy: Path, file: Path) -> None:
    shutil.copy(copy, file)
    assert file.stat().st_mtime_ns != copy.stat().st_mtime_ns
    file.with_name(f"{file.name}.wal").unlink(missing_ok=True)


def events(harness: ConsumerHarness) -> list[object]:
    try:
        return harness.column(EVENTS)
    except NothingLoaded:
        return []


def catch_up(harness: ConsumerHarness) -> list[dict[str, object]]:
    """Run the loader without new records, and return what it logged about reading again."""
    with capture_logs() as logged, harness.running():
        wait_for(
            lambda: len(events(harness)) == harness.written(TOPIC) and not harness.lag_outside(),
            "all that is in the log is loaded",
        )
    return [dict(line) for line in logged if line["event"] == "warehouse.behind"]


def restore_backup(harness: ConsumerHarness, lost: list[str]) -> None:
    """Make the warehouse as a backup is that was made before the loads of these events."""
    loads = [mark.load for mark in harness.consumer.bookmarks()[Partition(TOPIC)].marks][: len(lost)]
    with harness.warehouse.turn(), harness.warehouse._pipeline.sql_client() as client:
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
    with open_consumer(tree) as harness:
        load_each(harness, 1, 2)
        shutil.copy(warehouse_file(harness), tmp_path / "kept")
        load_each(harness, 3, 4, 5)
    restore(tmp_path / "kept", warehouse_file(harness))
    with open_consumer(tree) as harness:
        assert harness.column(EVENTS) == ids(1, 2)
        [line] = catch_up(harness)
        assert harness.column(EVENTS) == ids(1, 2, 3, 4, 5)
        assert harness.column(BOOKINGS) == ["B1", "B2", "B3", "B4", "B5"]
    assert (line["log_level"], line["topic"], line["deleted"]) == ("warning", TOPIC, 0)
    with open_consumer(tree) as harness:
        assert catch_up(harness) == []


def test_a_warehouse_that_is_restored_under_a_consumer_gets_what_it_lacks_with_what_comes_next(
    harness: ConsumerHarness, tmp_path: Path
) -> None:
    load_each(harness, 1, 2)
    shutil.copy(warehouse_file(harness), tmp_path / "kept")
    load_each(harness, 3, 4)
    restore(tmp_path / "kept", warehouse_file(harness))
    harness.append(sample(5, "B5"))
    assert len(catch_up(harness)) == 1
    assert harness.column(EVENTS) == ids(1, 2, 3, 4, 5)


def test_a_warehouse_that_is_restored_under_a_consumer_gets_what_it_lacks_though_nothing_comes(
    harness: ConsumerHarness, tmp_path: Path
) -> None:
    load_each(harness, 1)
    shutil.copy(warehouse_file(harness), tmp_path / "kept")
    load_each(harness, 2, 3)
    restore(tmp_path / "kept", warehouse_file(harness))
    assert len(catch_up(harness)) == 1
    assert harness.column(EVENTS) == ids(1, 2, 3)


def test_a_warehouse_that_is_replaced_within_a_load_gets_what_that_wrote_though_nothing_comes(
    harness: ConsumerHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_each(harness, 1)
    copy, write = Path(shutil.copy(warehouse_file(harness), tmp_path / "kept")), harness.warehouse.load
    load_each(harness, 2)

    def replaced_after(rows: Mapping[str, list[Row]]) -> str:
        load_id = write(rows)
        monkeypatch.setattr(harness.warehouse, "load", write)
        copy.replace(warehouse_file(harness))  # what was just written is in a file that no longer has a name
        return load_id

    monkeypatch.setattr(harness.warehouse, "load", replaced_after)
    harness.append(sample(3, "B3"))
    assert len(catch_up(harness)) == 1
    assert harness.column(EVENTS) == ids(1, 2, 3)


def test_what_a_restored_warehouse_lacks_is_found_at_any_destination(either_tree: Tree) -> None:
    with open_consumer(either_tree) as harness:
        load_each(harness, 1, 2, 3, 4)
        restore_backup(harness, ids(3, 4))
    with open_consumer(either_tree) as harness:
        catch_up(harness)
        assert harness.column(EVENTS) == ids(1, 2, 3, 4)
        assert harness.column(BOOKINGS) == ["B1", "B2", "B3", "B4"]


def test_a_warehouse_that_is_new_on_purpose_gets_all_that_the_log_has(tree: Tree, tmp_path: Path) -> None:
    with open_consumer(tree) as harness:
        load_each(harness, 1, 2)
    with open_consumer(with_section(tree, "warehouse", credentials=f"{tmp_path}/another.duckdb")) as harness:
        [line] = catch_up(harness)
        assert harness.column(EVENTS) == ids(1, 2)
    assert line["log_level"] == "info"


def test_what_the_log_no_longer_has_either_is_told(tree: Tree, tmp_path: Path) -> None:
    with open_consumer(tree | ACCOUNTS) as harness:
        load_each(harness, 1, 2, 3)
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection, connection:
        connection.execute("DELETE FROM records WHERE offset < 2")
    warehouse_file(harness).unlink()
    with open_consumer(tree | ACCOUNTS) as harness, capture_logs() as logged, harness.running():
        wait_for(lambda: events(harness) == ids(3), "what is left is loaded")
    [line] = [line for line in logged if line["event"] == "warehouse.behind"]
    assert (line["log_level"], line["deleted"]) == ("error", 2)
    assert "ingest reconcile --since" in line["why"]
    [note] = notes(harness)
    assert note.source == "/oncehub/support"
    assert orjson.loads(note.data)["cause"] == Cause.WAREHOUSE_RESTORED


def notes(harness: ConsumerHarness) -> list[Event]:
    """Return the notes in the log that deliveries may be missing."""
    with closing(harness.settings.build_log().reader(None, [harness.settings.audit_topic])) as reader:
        return [
            event for stored in reader.records() if (event := Event.from_record(stored.record)).type == LOST
        ]


def test_what_neither_a_restored_warehouse_nor_the_log_has_may_be_missing_since_its_newest_record(
    tree: Tree, tmp_path: Path
) -> None:
    with open_consumer(tree | ACCOUNTS) as harness:
        harness.append(sample(1, "B1"), sample(2, "B2"))
        appended_at = wait_for_days(tmp_path / "log.db", 5)
        assert harness.loader.step() == 2
        shutil.copy(warehouse_file(harness), tmp_path / "kept")
        load_each(harness, 3, 4)
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection, connection:
        connection.execute("DELETE FROM records WHERE offset < 3")
    restore(tmp_path / "kept", warehouse_file(harness))
    with open_consumer(tree | ACCOUNTS) as harness:
        with harness.running():
            wait_for(lambda: events(harness) == ids(1, 2, 4), "what is left is loaded")
        [note] = notes(harness)
    assert since_of(note) == appended_at - timedelta(minutes=1)


def test_what_the_log_deleted_of_a_backlog_may_be_missing_since_the_newest_record_that_was_loaded(
    tree: Tree, tmp_path: Path
) -> None:
    with open_consumer(tree | ACCOUNTS) as harness:
        harness.append(sample(1, "B1"))
        appended_at = wait_for_days(tmp_path / "log.db", 5)
        assert harness.loader.step() == 1  # just now, although it and others had waited for days
        deleted, bookmarks = PositionChange(Partition(TOPIC), 1, 2), harness.consumer.bookmarks()
        report_changes([deleted], harness.settings, harness.producer, bookmarks)
        [note] = notes(harness)
    assert orjson.loads(note.data)["cause"] == Cause.LOG_DELETED
    assert since_of(note) == appended_at - timedelta(minutes=1)


def wait_for_days(log: Path, days: int) -> datetime:
    """Make the log's records so many days older, and return when the newest was appended, by the second."""
    with closing(sqlite3.connect(log)) as connection, connection:
        connection.execute("UPDATE records SET appended_at = appended_at - ?", [days * 86_400])
        [(newest,)] = connection.execute("SELECT max(appended_at) FROM records").fetchall()
    return datetime.fromtimestamp(int(newest), UTC)


def since_of(note: Event) -> datetime:
    return parse_instant(orjson.loads(note.data)["since"])


def test_commits_of_an_older_version_are_trusted(tree: Tree, tmp_path: Path) -> None:
    with open_consumer(tree) as harness:
        load_each(harness, 1, 2)
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection, connection:
        connection.execute("DELETE FROM bookmarks")
    warehouse_file(harness).unlink()
    with open_consumer(tree) as harness:
        load_each(harness, 3)
        assert harness.column(EVENTS) == ids(3)


def test_a_batch_that_needs_no_load_depends_on_the_one_before(harness: ConsumerHarness) -> None:
    load_each(harness, 1)
    before = harness.consumer.bookmarks()[Partition(TOPIC)].newest
    harness.append_records(TOPIC, Record("key", b"not an event"))
    harness.loader.step()
    after = harness.consumer.bookmarks()[Partition(TOPIC)].newest
    assert before
    assert after
    assert after.offset == before.offset + 1
    assert after.load == before.load != ""


def test_a_log_that_was_restored_is_told_and_its_accounts_are_to_be_reconciled(
    tree: Tree, tmp_path: Path
) -> None:
    with open_consumer(tree | ACCOUNTS) as harness:
        load_each(harness, 1)
        with (
            closing(sqlite3.connect(tmp_path / "log.db")) as source,
            closing(sqlite3.connect(tmp_path / "kept")) as target,
        ):
            source.backup(target)
        load_each(harness, 2, 3)
        (tmp_path / "kept").replace(tmp_path / "log.db")
        harness.append(sample(4, "B4"))
        with capture_logs() as logged, harness.running():
            wait_for(lambda: harness.column(EVENTS) == ids(1, 2, 3, 4), "what came since is loaded")
            wait_for(lambda: harness.lag_outside() == 0, "the note too is read")
        [line] = [line for line in logged if line["event"] == "log.changed"]
        assert (line["topic"], line["before"], line["read_again_from"]) == (TOPIC, 3, 1)
        with closing(harness.settings.build_log().reader(None, [harness.settings.audit_topic])) as reader:
            [note] = [Event.from_record(stored.record) for stored in reader.records()]
    assert orjson.loads(note.data)["cause"] == Cause.LOG_CHANGED
    assert (note.type, note.source) == (LOST, "/oncehub/support")


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
    with open_consumer(either_tree) as before:
        before.warehouse.prepare()
        before.load(sample(1))
        with before.warehouse.turn(), before.warehouse._pipeline.sql_client() as client:
            client.execute_sql(f"DROP TABLE {client.make_qualified_table_name(table)}")
    with open_consumer(either_tree) as again:
        again.warehouse.prepare()
        assert table in tables(again)
        again.load(sample(2))
