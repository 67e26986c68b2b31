"""Tests of the verdicts that runs leave behind, with simulated vendors, a log, a consumer and a warehouse."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest.warehouse.completeness import (
    CompletenessTable,
    HourVerdict,
    Verdict,
    complete_until,
    hour_of,
)
from tests.receivers.reconcile.pipeline import Pipeline

VENDORS = ["appointedd", "bookeo", "calendly", "oncehub"]


def verdicts(pipeline: Pipeline, account: str) -> list[HourVerdict]:
    return list(CompletenessTable(pipeline.harness.settings).verdicts(account, account).values())


def kinds(stored: list[HourVerdict]) -> Counter[Verdict]:
    return Counter(verdict.verdict for verdict in stored)


def test_every_hour_is_complete_once_what_was_missing_is_repaired(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path, VENDORS)
    with pipeline.open():
        changes = pipeline.simulate(60)
        pipeline.deliver(changes[::2])
        reports = pipeline.reconcile()
        pipeline.settle()
        assert pipeline.differences() == []
        for account in VENDORS:
            stored = verdicts(pipeline, account)
            now = datetime.now(UTC)
            assert complete_until(stored) in {hour_of(now), hour_of(now - timedelta(hours=1))}
            proven = [verdict for verdict in stored if verdict.verdict is Verdict.COMPLETE]
            assert sum(verdict.listed for verdict in proven) == len(pipeline.world.meetings[account])
            assert sum(verdict.repaired for verdict in proven) >= reports[account].counts.repaired
            assert all(verdict.held == verdict.listed for verdict in proven)
            assert {verdict.run_id for verdict in proven} == {reports[account].id}
            assert sum(verdict.webhooks for verdict in stored) > 0


def test_a_second_run_finds_the_same_digests_and_states_nothing(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path, VENDORS)
    with pipeline.open():
        pipeline.deliver(pipeline.simulate(40))
        pipeline.reconcile()
        pipeline.settle()
        first = [verdict for account in VENDORS for verdict in verdicts(pipeline, account)]
        pipeline.reconcile()
        pipeline.settle()
        second = [verdict for account in VENDORS for verdict in verdicts(pipeline, account)]
    proven = {verdict.id: verdict for verdict in first if verdict.verdict is Verdict.COMPLETE}
    assert len(proven) > 4 * 24
    assert {verdict.id: verdict.digest for verdict in second if verdict.id in proven} == {
        verdict_id: verdict.digest for verdict_id, verdict in proven.items()
    }


@pytest.mark.parametrize("account", VENDORS)
def test_a_dry_run_proves_nothing(tmp_path: Path, account: str) -> None:
    pipeline = Pipeline(tmp_path, [account])
    with pipeline.open():
        pipeline.deliver(pipeline.simulate(5))
        pipeline.reconcile(dry_run=True)
        pipeline.settle()
        assert verdicts(pipeline, account) == []


def test_no_shows_that_nobody_looks_for_are_unprovable(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path, ["calendly"], calendly={"check_no_shows": False})
    with pipeline.open():
        pipeline.deliver(pipeline.simulate(10))
        pipeline.reconcile()
        pipeline.settle()
        stored = verdicts(pipeline, "calendly")
    assert kinds(stored).keys() == {Verdict.UNPROVABLE, Verdict.OPEN}
    assert "check_no_shows is off; every booking that the vendor lists is held" in str(stored[0].reason)
