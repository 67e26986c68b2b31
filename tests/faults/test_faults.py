"""The short form of `make faults`: each kind of fault on each log.

Nothing is to be lost, nothing doubled, and nothing older written over newer.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.faults.clock import find_library
from tests.faults.disk import can_mount
from tests.faults.plan import ALL, CLOCKS, OF_WAREHOUSE, Fault, Kind, Plan
from tests.faults.run import Report, RunOptions, run

_OF_KAFKA = (
    ALL - {Kind.FULL_LOG_DISK, Kind.FULL_WAREHOUSE_DISK, Kind.WAREHOUSE_LOCKED, Kind.FREEZE_WORKER} - CLOCKS
)


def carry_out(folder: Path, log: str, warehouse: str, **options: Any) -> Report:
    """Carry out a run with the options of `RunOptions`."""
    run_options = RunOptions(log, warehouse, folder=folder / "system", **options)
    return asyncio.run(run(run_options, lambda *_: None))


def check(report: Report) -> None:
    """Check that things were broken, and that all webhooks were accepted in the end and loaded right."""
    assert report.verdict.faults() == {}, report.summary()
    assert report.breaker.done.total() > report.breaker.missed.total(), report.summary()


def test_the_embedded_log_with_every_kind_of_fault(tmp_path: Path) -> None:
    report = carry_out(tmp_path, "sqlite", "duckdb", seed=20261, kills=14, webhooks=4000, seconds=40)
    check(report)
    assert can_mount(tmp_path) or report.impossible >= {Kind.FULL_LOG_DISK, Kind.FULL_WAREHOUSE_DISK}


@pytest.mark.skipif(find_library() is None, reason="no clock to jump: install libfaketime")
@pytest.mark.parametrize("log", ["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def test_clocks_that_jump(tmp_path: Path, log: str, request: pytest.FixtureRequest) -> None:
    if log == "kafka":
        request.getfixturevalue("kafka_tools")
    jumps = (0.99, 0.4, 0.01)  # a year ahead, two minutes behind, a year behind
    faults = [
        Fault(4.0 + 3 * number, kind, 5.0, chance)
        for number, chance in enumerate(jumps)
        for kind in sorted(CLOCKS)
    ]
    plan = Plan(seed=20265, seconds=15, faults=tuple(faults))
    check(
        carry_out(
            tmp_path, log, "duckdb", seed=20265, kills=0, webhooks=600, seconds=15, kinds=ALL, plan=plan
        )
    )


@pytest.mark.kafka
@pytest.mark.usefixtures("kafka_tools")
def test_kafka_with_one_node(tmp_path: Path) -> None:
    check(
        carry_out(
            tmp_path, "kafka", "duckdb", seed=20262, kills=10, webhooks=3500, seconds=40, kinds=_OF_KAFKA
        )
    )


@pytest.mark.postgres
@pytest.mark.usefixtures("postgres_programs")
def test_a_warehouse_at_a_server_that_goes_down(tmp_path: Path) -> None:
    kinds = OF_WAREHOUSE["postgres"] | {Kind.WAREHOUSE_LOCKED, Kind.KILL_CONSUMER_AT_STEP}
    check(
        carry_out(tmp_path, "sqlite", "postgres", seed=20266, kills=5, webhooks=2000, seconds=20, kinds=kinds)
    )


@pytest.mark.kafka
@pytest.mark.usefixtures("kafka_tools")
@pytest.mark.parametrize(
    ("warehouse", "moment"),
    [("duckdb", "before process"), pytest.param("postgres", "before load", marks=pytest.mark.postgres)],
)
def test_a_consumer_that_sleeps_until_another_has_its_bookings_writes_nothing_older_over_newer(
    tmp_path: Path, warehouse: str, moment: str, request: pytest.FixtureRequest
) -> None:
    if warehouse == "postgres":
        request.getfixturevalue("postgres_programs")
    faults = (
        Fault(0.5, Kind.CONSUMER_JOINS, seconds=38, chance=0),
        Fault(12.0, Kind.FREEZE_CONSUMER_AT_STEP, seconds=14, chance=0, moment=moment),
    )
    plan = Plan(seed=20264, seconds=40, faults=faults)
    report = carry_out(
        tmp_path, "kafka", warehouse, seed=20264, kills=0, webhooks=5000, seconds=40, plan=plan
    )
    check(report)
    assert report.breaker.done.total() == 2, report.summary()


@pytest.mark.kafka
@pytest.mark.usefixtures("kafka_tools")
def test_a_cluster_whose_leaders_are_killed(tmp_path: Path) -> None:
    kinds = frozenset({Kind.KILL_LEADER, Kind.KILL_CONSUMER, Kind.KILL_WORKER})
    check(
        carry_out(tmp_path, "cluster", "duckdb", seed=20263, kills=5, webhooks=2000, seconds=20, kinds=kinds)
    )
