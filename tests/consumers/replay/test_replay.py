"""Tests of `ingest replay` over the embedded log and DuckDB, with a consumer that runs."""

import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consumers.replay import Replay, ReplayFilter
from ingest.errors import LogUnavailable
from ingest.log import Record
from ingest.warehouse.deliveries import arrivals
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import TOPIC, moment, sample
from tests.consumers.test_loader import metric
from tests.consumers.test_reconciled import RUN, end_of_run
from tests.receivers.reconcile.pipeline import Pipeline
from tests.support.polling import PATIENCE, wait_for
from tests.support.processes import IngestProcess, Result, ingest, start_ingest
from tests.support.settings import with_section, write_settings

VENDORS = ["appointedd", "bookeo", "calendly", "oncehub"]
TABLES = {"bookings": "booking_id", "booking_events": "id", "dead_letters": "id", "reconciliations": "id"}


def snapshot(harness: ConsumerHarness) -> dict[str, list[dict[str, Any]]]:
    """Return every row of every table, `loaded_at` included."""
    return {
        name: harness.rows(f"select * from {name} order by {key}, loaded_at") for name, key in TABLES.items()
    }


def replay(pipeline: Pipeline, folder: Path, *arguments: str) -> Result:
    write_settings(folder, pipeline.tree())
    return ingest(folder, "replay", *arguments)


def load_history(pipeline: Pipeline) -> None:
    """Load webhooks, some of them twice, a repair by reconciliation, and something that cannot be read."""
    changes = pipeline.simulate(40)
    pipeline.deliver([*changes[:-15], *changes[10:20]])
    pipeline.harness.append_records(TOPIC, Record("oncehub/oncehub/B", b"{", sample(1).to_record().headers))
    pipeline.settle()
    assert all(report.settled for report in pipeline.reconcile().values())
    pipeline.settle()
    assert pipeline.harness.column("select count(*) from bookings where last_via = 'reconcile'") != [0]
    assert pipeline.harness.column("select count(*) from dead_letters") == [1]
    assert pipeline.harness.column("select count(*) from reconciliations") == [len(pipeline.accounts)]
    assert pipeline.differences() == []


def without_columns(
    snapshot: dict[str, list[dict[str, Any]]], *without: str
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows without these columns."""
    return {
        table: [{name: row[name] for name in row.keys() - set(without)} for row in rows]
        for table, rows in snapshot.items()
    }


# What a row that was brought back has otherwise: when and how it came, and its own copy's place.
OTHERWISE = (
    "loaded_at",
    "via",
    "last_via",
    "position",
    "first_seen_at",
    "_dlt_load_id",
    "_dlt_id",
    "headers",
)


@contextmanager
def consuming(pipeline: Pipeline) -> Iterator[ConsumerHarness]:
    """Run a consumer that starts anew."""
    with pipeline.opened(), pipeline.harness.running():
        wait_for(pipeline._tables_are_there, "the consumer has made its tables")
        yield pipeline.harness


def lose_warehouse(pipeline: Pipeline) -> None:
    """Delete the warehouse, whoever uses it."""
    file = pipeline.harness.settings.warehouse.duckdb_file
    assert file
    for file_or_copy in file.parent.glob(f"{file.name}*"):
        if file_or_copy.suffix != ".lock":
            file_or_copy.unlink()


def test_what_is_in_the_log_as_a_copy_alone_comes_back_too(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path, VENDORS)
    with pipeline.server.serving():
        with consuming(pipeline) as harness:
            load_history(pipeline)
            before = snapshot(harness)
            written = {entry.partition.topic: entry.next for entry in harness.consumer.backlog()}
            assert replay(pipeline, tmp_path).code == 0
        lose_warehouse(pipeline)
        with closing(sqlite3.connect(tmp_path / "log.db")) as log, log:  # as retention does
            log.executemany("DELETE FROM records WHERE topic = ? AND offset < ?", written.items())
        with consuming(pipeline) as harness:
            assert replay(pipeline, tmp_path).code == 0
            assert pipeline.differences() == []
            assert without_columns(snapshot(harness), *OTHERWISE) == without_columns(before, *OTHERWISE)


def test_a_lost_warehouse_comes_back_whole(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path, VENDORS)
    with pipeline.server.serving():
        with consuming(pipeline) as harness:
            load_history(pipeline)
            before, heard = (
                snapshot(harness),
                {name: arrivals(harness.settings, name, name).last for name in VENDORS},
            )
            assert None not in heard.values()
        lose_warehouse(pipeline)
        shutil.rmtree(harness.settings.warehouse.work_dir)
        with consuming(pipeline) as harness:
            result = replay(
                pipeline, tmp_path, "--json"
            )  # while the consumer reads the log again by itself: either may bring a row first
            assert result.code == 0, result
            assert pipeline.differences() == []
            assert without_columns(snapshot(harness), *OTHERWISE) == without_columns(before, *OTHERWISE)
            assert {name: arrivals(harness.settings, name, name).last for name in VENDORS} == heard
            records = result.json["read"]
            assert result.json == result.json | {"replayed": records, "loaded": True, "dry_run": False}
            assert result.json["accounts"].keys() == {f"{name}/{name}" for name in VENDORS} | {
                "oncehub/support"
            }
            back = snapshot(harness)
            twice = replay(pipeline, tmp_path, "--json")
            # The record that cannot be read may have been set aside a second time, by the consumer that read
            # the log again.
            assert twice.json["replayed"] - records in {0, 1}
            assert twice.json["replayed"] + twice.json["skipped"]["replays"] == twice.json["read"]
            assert snapshot(harness) == back


def test_a_warehouse_that_is_deleted_under_a_running_consumer_comes_back(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path, ["oncehub"])
    with pipeline.server.serving(), consuming(pipeline) as harness:
        pipeline.deliver(pipeline.simulate(10))
        events = harness.column("select id from booking_events order by id")
        lose_warehouse(pipeline)
        assert replay(pipeline, tmp_path).code == 0
        assert pipeline.differences() == []
        assert harness.column("select id from booking_events order by id") == events


def test_a_right_warehouse_is_left_as_it_is_to_the_last_instant(tmp_path: Path) -> None:
    with Pipeline(tmp_path, VENDORS).open() as pipeline:
        load_history(pipeline)
        before = snapshot(pipeline.harness)
        result = replay(pipeline, tmp_path)
        assert result.code == 0, result
        assert "everything was loaded" in result.out
        assert snapshot(pipeline.harness) == before
        assert pipeline.harness.lag_outside() == 0


def test_rows_of_an_older_mapping_are_mended_and_no_others_are_touched(
    either_harness: ConsumerHarness,
) -> None:
    events = [
        sample(number, f"B{number % 5}", at=number // 2, starting_time="2026-05-09T10:00:00Z")
        for number in range(20)
    ]
    either_harness.load(*events)
    before = {row["booking_id"]: row for row in either_harness.rows("select * from bookings")}
    alter_rows(
        either_harness,
        "update {} set status = 'a word that is gone', staff = '[\"S1\"]', price = 7"
        " where booking_id in ('B1', 'B3')",
    )
    replay_in_process(either_harness)
    after = {row["booking_id"]: row for row in either_harness.rows("select * from bookings")}
    assert {name: row for name, row in after.items() if name not in {"B1", "B3"}} == {
        name: row for name, row in before.items() if name not in {"B1", "B3"}
    }
    for name in ("B1", "B3"):
        assert after[name]["loaded_at"] > before[name]["loaded_at"]
        assert after[name] == before[name] | {"last_via": "replay", **its_load(after[name])}
    replay_in_process(either_harness)
    assert {row["booking_id"]: row for row in either_harness.rows("select * from bookings")} == after


def its_load(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("loaded_at", "_dlt_load_id", "_dlt_id") if name in row}


def alter_rows(harness: ConsumerHarness, sql: str, table: str = "bookings") -> None:
    """Change rows by hand, as an older mapping would have written them."""
    with harness.warehouse.turn(), harness.warehouse._pipeline.sql_client() as client:
        client.execute_sql(sql.format(client.make_qualified_table_name(table)))


def replay_in_process(harness: ConsumerHarness, wanted: ReplayFilter = ReplayFilter()) -> Replay:  # noqa: B008 - a frozen value
    """Replay while the consumer's loader runs."""
    with harness.running(), closing(harness.settings.build_log().reader(None)) as reader:
        replay = Replay(harness.settings, reader, harness.producer, wanted)
        replay.run()
    return replay


def test_what_happens_during_a_replay_is_loaded_and_wins_where_it_is_newer(tmp_path: Path) -> None:
    with Pipeline(tmp_path, VENDORS).open() as pipeline:
        pipeline.deliver(pipeline.simulate(150))
        lose_warehouse(pipeline)
        write_settings(tmp_path, pipeline.tree())
        with start_ingest(tmp_path, "replay") as process:
            wait_for(lambda: count_replayed(pipeline.harness) > 0, "the replay has begun")
            while process.running:
                pipeline.append(pipeline.simulate(2))
            assert process.wait() == 0
        pipeline.settle()
        assert pipeline.differences() == []
        assert pipeline.harness.column("select count(*) from booking_events where via = 'webhook'") > [0]


def count_replayed(harness: ConsumerHarness) -> int:
    """Return the number of replayed records in the log, over all topics."""
    reader = harness.settings.build_log().reader(None)
    try:
        return sum(stored.record.headers.get("ce_via") == "replay" for stored in reader.records())
    finally:
        reader.close()


def load_many(harness: ConsumerHarness, count: int = 2500) -> None:
    """Load events: more than one part of a replay has, unless another count is given."""
    harness.warehouse.prepare()
    harness.load(*(sample(number, f"B{number % 300}", at=number % 997) for number in range(count)))


@contextmanager
def start_waiting_replay(
    tmp_path: Path, tree: dict[str, Any], harness: ConsumerHarness
) -> Iterator[IngestProcess]:
    """Start a replay that has appended its first two parts, and waits for somebody to load them."""
    write_settings(tmp_path, {**tree, "accounts": {}})
    with start_ingest(tmp_path, "replay") as process:
        wait_for(lambda: harness.lag() >= 2000, "two parts are appended")
        yield process


def test_it_appends_no_more_than_two_parts_that_nobody_loads_and_killed_and_started_again_it_ends_right(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    with open_consumer(tree) as harness:
        load_many(harness)
        before = snapshot(harness)
        with start_waiting_replay(tmp_path, tree, harness) as process:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
            assert harness.lag() == 2000
            process.kill()
        alter_rows(harness, "delete from {} where booking_id < 'B2'")
        with harness.running():
            result = ingest(tmp_path, "replay", "--json")
        assert result.code == 0, result
        assert (result.json["replayed"], result.json["skipped"]["replays"]) == (2500, 2000)
        assert (
            without_columns(snapshot(harness), *OTHERWISE)["bookings"]
            == without_columns(before, *OTHERWISE)["bookings"]
        )
        assert snapshot(harness)["booking_events"] == before["booking_events"]


def test_stopped_by_hand_it_says_how_to_go_on_and_that_brings_the_rest(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    with open_consumer(tree) as harness:
        load_many(harness)
        before = snapshot(harness)
        with start_waiting_replay(tmp_path, tree, harness) as process:
            wait_for(
                lambda: "waiting for a consumer: is `ingest up`" in process.stderr(), "it says that it waits"
            )
            process.send_signal(signal.SIGINT)
            assert process.wait() == 130
            output = process.stderr()
        alter_rows(harness, "delete from {}")
        with harness.running():
            wait_for(lambda: harness.lag_outside() == 0, "what it had appended is loaded")
            assert "stopped: to continue, run it with --since 20" in output
            result = ingest(tmp_path, "replay", "--since", output.split()[-1], "--json")
        assert (result.code, result.json["loaded"]) == (0, True)
        assert result.json["replayed"] >= 500
        assert (
            without_columns(snapshot(harness), *OTHERWISE)["bookings"]
            == without_columns(before, *OTHERWISE)["bookings"]
        )


def test_when_nobody_consumes_it_says_so_and_how_to_go_on_later_where_loads_are_far_apart(
    tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.waits.STALLED_SECONDS", 0.3)
    with open_consumer(with_section(tree, "consumer", linger="700ms")) as harness:
        harness.load(sample(1))
        with closing(harness.settings.build_log().reader(None)) as reader:
            replay = Replay(harness.settings, reader, harness.producer, ReplayFilter())
            with pytest.raises(LogUnavailable, match=r"no consumer has loaded any of 1 records .* for 1 s"):
                replay.run()
    assert replay.report.appended
    assert not replay.report.loaded


def test_where_loads_are_far_apart_a_whole_batch_may_wait_which_is_loaded_before_its_time(
    tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.replay._PART_RECORDS", 100)
    monkeypatch.setattr("consumers.replay._MOST_WAITING", 100)
    monkeypatch.setattr("ingest.waits.STALLED_SECONDS", PATIENCE - 3600)  # it gives up after an hour and this
    with open_consumer(with_section(tree, "consumer", linger="1h", max_records=250)) as harness:
        load_many(harness, 500)
        alter_rows(harness, "delete from {}")
        assert replay_in_process(harness).report.loaded
        assert harness.column("select count(*) from bookings") == [300]


def test_accounts_and_times_choose_what_is_replayed(harness: ConsumerHarness) -> None:
    others = [replace(sample(number, at=number), source="/oncehub/other") for number in range(10, 14)]
    harness.load(*(sample(number, at=number) for number in range(6)), *others)
    chosen = replay_in_process(
        harness, ReplayFilter(moment(2), moment(13), frozenset({"support"}))
    ).report.columns()
    assert (chosen["read"], chosen["replayed"], chosen["accounts"]) == (10, 4, {"oncehub/support": 4})
    assert chosen["skipped"] == {"replays": 0, "other_accounts": 4, "outside": 2, "refused": 0, "probes": 0}
    assert (chosen["from"], chosen["to"]) == ("2026-05-01T09:00:02.000000Z", "2026-05-01T09:00:05.000000Z")
    assert count_replayed(harness) == 4


def test_metrics_of_what_happens_now_do_not_move_with_what_happened_then(harness: ConsumerHarness) -> None:
    harness.append_records(harness.settings.audit_topic, end_of_run(RUN).to_record())
    harness.load(sample(1, at=5), sample(2, at=1))
    labels = {"vendor": "oncehub", "account": "support"}
    still = ["events_stale_total", "reconcile_missed_total", "freshness_seconds_count"]
    before = [metric(f"ingest_{name}", **labels) for name in still]
    runs = metric("ingest_reconciliations_total", outcome="complete", **labels)
    replayed = metric("ingest_events_loaded_total", via="replay", **labels)
    replay_in_process(harness)
    assert [metric(f"ingest_{name}", **labels) for name in still] == before
    assert metric("ingest_reconciliations_total", outcome="complete", **labels) == runs
    assert metric("ingest_events_loaded_total", via="replay", **labels) == replayed + 2


def test_a_dry_run_counts_and_appends_nothing(tmp_path: Path, tree: dict[str, Any]) -> None:
    write_settings(tmp_path, {**tree, "accounts": {}})
    with open_consumer(tree) as harness:
        harness.load(sample(1), sample(2, at=3))
        result = ingest(tmp_path, "replay", "--dry-run")
        assert (result.code, result.err) == (0, "")
        assert "2 records would be replayed, received from 2026-05-01T09:00:00" in result.out
        assert count_replayed(harness) == 0
        early = ingest(tmp_path, "replay", "--dry-run", "--since", "2026-01-01")
        assert "the log begins at 20" in early.err


def test_an_account_that_left_the_settings_is_replayed_and_one_that_never_was_is_told(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    write_settings(tmp_path, {**tree, "accounts": {}})
    with open_consumer(tree) as harness:
        harness.load(sample(1))
        result = ingest(
            tmp_path, "replay", "--dry-run", "--json", "--account", "support", "--account", "suport"
        )
    assert result.json["accounts"] == {"oncehub/support": 1}
    assert "the settings have no account suport" in result.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--since", "yesterday"], "--since yesterday"),
        (["--since", "2026-11-02", "--until", "2026-11-01"], "--since must be before --until"),
    ],
)
def test_what_cannot_be_done_is_refused(
    tmp_path: Path, tree: dict[str, Any], arguments: list[str], expected: str
) -> None:
    write_settings(tmp_path, {**tree, "accounts": {}})
    result = ingest(tmp_path, "replay", *arguments)
    assert result.code == 2
    assert expected in result.err


def test_a_log_that_is_not_there_is_an_error_and_stays_away(tmp_path: Path, tree: dict[str, Any]) -> None:
    write_settings(tmp_path, {**tree, "accounts": {}})
    result = ingest(tmp_path, "replay")
    assert result.code == 3
    assert "there is no log yet" in result.err
    assert not (tmp_path / "log.db").exists()
