"""Tests of how soon webhooks are visible."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest.warehouse.completeness import hour_of
from ingest.warehouse.freshness import Arrival, FreshnessTable
from receivers.completeness.freshness import measure, measure_freshness, percentile
from tests.receivers.reconcile.pipeline import SPAN, Pipeline

START = datetime(2026, 5, 1, 9, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("seconds", "share", "expected"),
    [
        ([], 50, None),
        ([3.0], 99, 3.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        ([*map(float, range(100))], 95, 94.0),
    ],
)
def test_so_many_percent_take_no_longer(seconds: list[float], share: int, expected: float | None) -> None:
    assert percentile(seconds, share) == expected


def test_a_webhook_is_visible_at_the_end_of_its_load() -> None:
    arrivals = [
        Arrival(at(0), at(-5), at(1)),
        Arrival(at(2), at(2), at(3)),  # the vendor does not tell when it happened
        Arrival(at(9), at(8), at(9)),  # not visible yet
    ]
    measured = measure(arrivals, [at(0.5), at(2), at(4)])
    assert measured == {
        "events": 2, "p50": 2.0, "p95": 2.0, "p99": 2.0,
        "happened_p50": 7.0, "happened_p95": 7.0, "happened_p99": 7.0,
    }  # fmt: skip


def test_a_receiver_whose_clock_is_ahead_makes_nothing_negative() -> None:
    measured = measure([Arrival(at(9), at(9), at(1))], [at(2)])
    assert (measured["p50"], measured["happened_p50"]) == (0.0, None)


def test_a_month_takes_two_queries_for_each_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received = [START + timedelta(minutes=20 * number) for number in range(31 * 24 * 3)]
    asked: list[str] = []

    def answer(_: FreshnessTable, sql: str, parameters: Sequence[Any]) -> list[tuple[datetime | None, ...]]:
        asked.append(sql)
        if "max(stated_at)" in sql:
            return [(None,)]
        since, until = parameters[-2:]
        if "loaded_at >= " in sql:
            return [(moment,) for moment in received]
        if "inserted_at" in sql:
            return [(moment,) for moment in received if since <= moment <= until]
        return [(moment, moment, moment) for moment in received if since <= moment < until]

    pipeline = Pipeline(tmp_path, ["oncehub"])
    with pipeline.open():
        settings = pipeline.harness.settings
        [account] = settings.build_accounts().values()
        with monkeypatch.context() as patches:
            patches.setattr(FreshnessTable, "_rows", answer)
            measure_freshness(settings, account, pipeline.harness.producer, START, START + timedelta(days=32))
        pipeline.settle()
        assert pipeline.harness.column("select events from freshness") == [3] * 31 * 24
    assert len(asked) == 2 + 2 * 32


def test_each_hour_with_webhooks_is_a_row(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path, ["oncehub"])
    with pipeline.open():
        pipeline.deliver(pipeline.simulate(8))
        settings = pipeline.harness.settings
        [account] = settings.build_accounts().values()
        now = datetime.now(UTC)
        for _ in range(2):  # the second time changes nothing
            measure_freshness(settings, account, pipeline.harness.producer, now - SPAN, now)
            pipeline.settle()
        rows = pipeline.harness.rows("select * from freshness order by hour")
        received = pipeline.harness.column("select received_at from booking_events")
        assert [row["hour"] for row in rows] == sorted({hour_of(moment) for moment in received})
        assert sum(row["events"] for row in rows) == len(received)
        assert all(0 < row["p50"] <= row["p95"] <= row["p99"] for row in rows)
