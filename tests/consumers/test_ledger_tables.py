"""The tables of the ledger in every kind of warehouse: what was stated is read back, and the rules hold."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest.event import GAP, MEASURED, Event, Via, build_statement
from ingest.warehouse.completeness import HOUR, PROVEN, CompletenessTable, Verdict, loads_table
from ingest.warehouse.freshness import FreshnessTable
from ingest.warehouse.gaps import read_gaps
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import START, TOPICS, moment, sample
from tests.consumers.test_lake import lake_tree
from tests.consumers.test_statements import SOURCE, VERDICT, statement

ACCOUNT = ("oncehub", "support")


@pytest.fixture(params=["duckdb", pytest.param("postgres", marks=pytest.mark.postgres), "delta", "iceberg"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ConsumerHarness]:
    if request.param == "postgres":
        yield request.getfixturevalue("postgres_harness")
        return
    is_lake = request.param != "duckdb"
    tree = (
        lake_tree(tmp_path, tmp_path / "lake", request.param) if is_lake else request.getfixturevalue("tree")
    )
    with open_consumer(tree) as harness:
        yield harness


def load(harness: ConsumerHarness, *events: Event) -> None:
    harness.append_records(TOPICS.audit, *(event.to_record() for event in events))
    harness.load()


def of_hour(number: int, **columns: Any) -> Event:
    hour = START + number * HOUR
    return statement(START, **{"id": f"{number}", "hour": hour.isoformat(), **columns})


def test_verdicts_are_read_back_and_the_latest_one_with_its_evidence_counts(harness: ConsumerHarness) -> None:
    table = CompletenessTable(harness.settings)
    assert (table.newest_load(), table.complete_until(*ACCOUNT), table.verdicts(*ACCOUNT)) == (None, None, {})
    harness.load(sample(1))
    newest = table.newest_load()
    assert newest == harness.column(f"select max(load_id) from {loads_table(harness.settings)}")[0]
    assert (table.has_load(newest or ""), table.has_load("0")) == (True, False)
    load(harness, statement(START, evidence_load=newest, listed=2, held=2))
    load(harness, statement(moment(-1), verdict="open"))  # older, as a redriven dead letter may be
    [verdict] = table.verdicts(*ACCOUNT).values()
    assert verdict.columns() == VERDICT.columns() | {"evidence_load": newest, "listed": 2, "held": 2}
    load(
        harness,
        of_hour(1, verdict="unprovable", reason="a part", evidence_load=newest),
        of_hour(2, evidence_load=newest),
        of_hour(3, evidence_load="of another warehouse"),
        of_hour(5, evidence_load=newest),
    )
    kinds = [verdict.verdict for verdict in table.verdicts(*ACCOUNT).values()]
    proven = [Verdict.COMPLETE, Verdict.UNPROVABLE, Verdict.COMPLETE]
    assert kinds == [*proven, Verdict.OPEN, Verdict.COMPLETE]
    assert [*table.verdicts(*ACCOUNT, START + HOUR, START + 3 * HOUR)] == [START + HOUR, START + 2 * HOUR]
    assert table.complete_until(*ACCOUNT) == START + HOUR
    assert table.complete_until(*ACCOUNT, PROVEN) == START + 3 * HOUR
    load(harness, statement(moment(1), verdict="open", listed=3))
    assert table.complete_until(*ACCOUNT) is None


def test_what_the_ledger_asks_of_bookings_and_webhooks_is_answered(harness: ConsumerHarness) -> None:
    table = CompletenessTable(harness.settings)
    signed = replace(sample(1), signed_by="current")
    harness.load(signed, sample(2, "B2", at=90), replace(sample(3, "B3"), via=Via.RECONCILE))
    [(first, loaded_at), (second, _)] = sorted(table.loaded_versions(*ACCOUNT, START - HOUR))
    assert [*table.held(*ACCOUNT)][:2] == [("B1", first), ("B2", second)]
    assert table.loaded_versions(*ACCOUNT, loaded_at + HOUR) == []
    assert [*table.webhook_times(*ACCOUNT, START, START + timedelta(days=2))] == [START]
    freshness = FreshnessTable(harness.settings)
    assert sorted(freshness.receipts(*ACCOUNT, START)) == [START, moment(90)]
    arrivals = freshness.arrivals(*ACCOUNT, START, START + HOUR)
    assert [arrival.received_at for arrival in arrivals] == [START, moment(90)]
    assert freshness.loads(arrivals)
    assert freshness.last_stated(*ACCOUNT) is None


def test_gaps_and_freshness_are_rows_too(harness: ConsumerHarness) -> None:
    common = {"vendor": "oncehub", "account": "support", "repaired": 0, "missed": 1}
    gap = common | {
        "id": "G",
        "from_at": "2026-05-01T09:00:00Z",
        "cause": "silence",
        "found_at": "2026-05-01T10:00:00Z",
    }
    fresh = common | {"id": "F", "hour": "2026-05-01T09:00:00Z", "events": 2, "p50": 1, "p95": 1.5, "p99": 2}
    of_later_release = gap | {"id": "L", "cause": "of_a_later_release"}
    load(
        harness,
        *(build_statement(GAP, SOURCE, row, START) for row in (gap, of_later_release)),
        build_statement(MEASURED, SOURCE, fresh, START),
    )
    assert harness.column("select count(*) from gaps") == [2]
    [stored] = read_gaps(harness.settings, START + HOUR)
    assert (stored.id, stored.cause, stored.until_at, stored.missed) == ("G", "silence", None, 1)
    assert harness.column("select p95 from freshness") == [1.5]
    assert FreshnessTable(harness.settings).last_stated(*ACCOUNT) == START
    closed = gap | {"closed_at": "2026-05-01T11:00:00Z"}
    load(harness, build_statement(GAP, SOURCE, closed, moment(5)))
    assert read_gaps(harness.settings, START + HOUR) == []
    assert harness.column("select count(*) from gaps where closed_at is not null") == [1]
