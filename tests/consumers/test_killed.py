"""Tests of `ingest consume` as a process: killed at any moment, stopped, started twice."""

import random
import subprocess
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consumers.rows import TABLES, arrow_table, event_row
from consumers.warehouse import Warehouse
from consumers.warehouse.tables import resource_of
from ingest.destinations import DUCKDB
from ingest.log.sqlite import SqliteProducer
from ingest.warehouse.query import query
from tests.consumers.samples import START, TOPIC, moment, sample
from tests.support.polling import PATIENCE, wait_for
from tests.support.processes import IngestProcess
from tests.support.settings import CommandRunner, Tree, with_section

KILLS = 8
EACH = 25  # new events between two kills


@pytest.fixture
def command(tmp_path: Path, tree: Tree) -> CommandRunner:
    """Return a command with many small loads, so that there is much to interrupt."""
    return CommandRunner(tmp_path, with_section(tree, "consumer", max_records=20))


def producer(command: CommandRunner) -> SqliteProducer:
    return SqliteProducer(Path(command.settings.log.removeprefix("sqlite:///")))


def rows(command: CommandRunner, sql: str) -> list[tuple[Any, ...]]:
    return list(query(command.settings, sql).rows)


def test_killed_again_and_again_it_loses_nothing_doubles_nothing_and_the_newest_wins(
    command: CommandRunner,
) -> None:
    chance = random.Random(20260501)
    ages = [chance.randrange(10_000) for _ in range(EACH * (KILLS + 1))]
    events = [
        sample(number, f"B{number % 40}", age, received_at=moment(number)) for number, age in enumerate(ages)
    ]
    with closing(producer(command)) as log:
        for kill in range(KILLS + 1):
            new = events[kill * EACH : (kill + 1) * EACH]
            repeated = chance.sample(events[: (kill + 1) * EACH], 10)
            log.append(TOPIC, [event.to_record() for event in new]).result(PATIENCE)
            with command.consuming() as process:
                wait_for(lambda: process.logged("consumer.started"), "a consumer that runs")
                log.append(TOPIC, [event.to_record() for event in repeated]).result(PATIENCE)
                if kill == KILLS:
                    wait_for(lambda: command.lag() == 0, "everything committed")
                    assert process.stop() == 0
                else:
                    kill_soon(command, process, chance)
    assert sorted(rows(command, "select id from booking_events")) == sorted((event.id,) for event in events)
    newest = {f"B{rest}": moment(max(ages[rest::40])) for rest in range(40)}
    assert dict(rows(command, "select booking_id, updated_at from bookings")) == newest
    assert rows(command, "select count(*) from bookings") == [(40,)]
    assert rows(command, "select count(*) from dead_letters") == [(0,)]


def kill_soon(command: CommandRunner, process: IngestProcess, chance: random.Random) -> None:
    """Kill the process before its first load is done, or some time after that or the next."""
    loads = len(process.logged("batch.loaded")) + chance.randrange(3)
    wait_for(lambda: command.lag() == 0 or len(process.logged("batch.loaded")) >= loads, "a few loads")
    with pytest.raises(subprocess.TimeoutExpired):  # it is alive until then
        process.wait(chance.uniform(0, 0.6))
    process.kill()


def test_a_package_that_a_killed_consumer_left_is_neither_loaded_twice_nor_in_the_way(
    command: CommandRunner,
) -> None:
    packages = Path(command.settings.warehouse.work_dir) / "ingest" / "load" / "normalized"
    with closing(producer(command)) as log:
        log.append(TOPIC, [sample(1).to_record(), sample(2, at=3).to_record()]).result(PATIENCE)
        with closing(
            Warehouse(command.settings)
        ) as killed:  # all that one does before it is killed in the middle of a load
            killed.prepare()
            killed._pipeline.extract(
                resource_of(
                    TABLES[0],
                    arrow_table(TABLES[0].name, [event_row(sample(1), "bookings.oncehub/0/0", START)]),
                    DUCKDB,
                )
            )
            killed._pipeline.normalize()
        assert any(packages.glob("*"))
        log.append(TOPIC, [sample(3, at=5).to_record()]).result(PATIENCE)
        with command.consuming() as process:
            wait_for(lambda: command.lag() == 0, "everything committed")
            assert process.stop() == 0
    assert sorted(rows(command, "select id from booking_events")) == [("E1",), ("E2",), ("E3",)]
    assert rows(command, "select last_event_id from bookings") == [("E3",)]
    assert not any(packages.glob("*"))


def test_a_second_consumer_of_one_pipeline_is_refused_and_the_first_goes_on(command: CommandRunner) -> None:
    with closing(producer(command)) as log, command.consuming() as first:
        wait_for(lambda: first.logged("consumer.started"), "a consumer that runs")
        second = command.run("consume")
        assert second.code == 3
        assert second.err.startswith("error: another consumer works in ")
        assert "consumer.instance" in second.err
        log.append(TOPIC, [sample(1).to_record()]).result(PATIENCE)
        wait_for(lambda: command.lag() == 0, "everything committed")
        assert first.stop() == 0


def test_at_its_dead_letter_limit_it_stops_with_a_message_and_an_exit_code_of_its_own(
    tmp_path: Path, tree: Tree
) -> None:
    command = CommandRunner(tmp_path, with_section(tree, "consumer", dead_letter_limit=3))
    bad = [replace(sample(number), data=b"{").to_record() for number in range(3)]
    with closing(producer(command)) as log:
        log.append(TOPIC, bad).result(PATIENCE)
    refused = command.run("consume")
    assert refused.code == 4
    assert "error: 3 records in a row could not be read or loaded" in refused.err
    assert command.lag() == 3
