"""Views for analysts, and the notebook that plots the same."""

import importlib.util
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from consumers.warehouse.views import VIEW_NAMES
from ingest.settings import Settings
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import START, sample
from tests.consumers.test_tables import execute
from tests.support.processes import ROOT
from tests.support.settings import Tree, settings_tree, with_section

DAY = START + timedelta(days=2)


def load_bookings(harness: ConsumerHarness) -> None:
    """Load two meetings that were held, a no-show, one to come, one that was cancelled, and one moved."""
    paid: dict[str, Any] = {"amount_charged": 1250, "currency": "EUR"}
    start: dict[str, Any] = {"starting_time": DAY.isoformat(), "subject": "Call"}
    to_come = (datetime.now(UTC) + timedelta(days=9)).isoformat()
    harness.load(
        sample(1, "B1", payment_information=paid, **start),
        sample(2, "B2", status="completed", payment_information=paid, **start),
        sample(3, "B3", status="no_show", **start),
        sample(4, "B4", starting_time=to_come, subject="Call"),
        sample(5, "B5", status="canceled", cancel_reschedule_information={"reason": "ill"}, **start),
        sample(6, "B6", **start),
    )
    execute(harness, "UPDATE {bookings} SET status = 'rescheduled' WHERE booking_id = 'B6'")


@pytest.fixture
def viewing(either_tree: Tree) -> Iterator[ConsumerHarness]:
    with open_consumer(with_section(either_tree, "warehouse", views=True)) as harness:
        load_bookings(harness)
        yield harness


def test_the_consumer_makes_views_for_analysts(viewing: ConsumerHarness) -> None:
    rows = viewing.rows("select day, status, bookings from bookings_per_day order by day, status")
    assert [tuple(row.values()) for row in rows[:4]] == [
        (date(2026, 5, 3), "cancelled", 1),
        (date(2026, 5, 3), "completed", 1),
        (date(2026, 5, 3), "confirmed", 1),
        (date(2026, 5, 3), "no_show", 1),
    ]
    assert len(rows) == 5
    [service] = viewing.rows("select * from no_show_rate_by_service")
    assert (service["service_name"], service["meetings"], service["no_shows"]) == ("Call", 3, 1)
    assert service["no_show_rate"] == pytest.approx(1 / 3)
    [staff] = viewing.rows("select * from no_show_rate_by_staff")
    assert staff["meetings"] == 3
    [lead] = viewing.rows("select * from lead_time_by_service")
    assert (lead["bookings"], lead["median_days"]) == (5, 2.0)
    [revenue] = viewing.rows("select * from revenue_by_service")
    assert (revenue["month"], revenue["currency"], revenue["bookings"]) == (date(2026, 5, 1), "EUR", 2)
    assert revenue["revenue"] == 25
    [cancelled] = viewing.rows("select * from cancellations_by_reason")
    assert (cancelled["cancel_reason"], cancelled["bookings"]) == ("ill", 1)


def test_views_stand_in_nobodys_way(viewing: ConsumerHarness) -> None:
    viewing.load(sample(9, "B9"))
    viewing.warehouse._failed = True  # as at a start
    viewing.load(sample(10, "B9", at=1))
    assert len(viewing.rows("select * from bookings")) == 7
    documented = (ROOT / "docs" / "tables.md").read_text().partition("## Views for analysts")[2]
    for name in VIEW_NAMES:
        [line] = [line for line in documented.splitlines() if line.startswith(f"| `{name}`")]
        columns = set(viewing.rows(f"select * from {name}")[0]) - {"service_name"}
        assert "the same by `service_name`" in line or all(f"`{column}`" in line for column in columns)


def test_other_destinations_refuse_views_and_say_so(tree: Tree) -> None:
    other = with_section(tree, "warehouse", destination="bigquery", views=True)
    with pytest.raises(ValidationError, match="DuckDB and PostgreSQL only"):
        Settings.model_validate(other)


def test_the_notebook_plots_the_bookings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_consumer(settings_tree(tmp_path)) as harness:
        load_bookings(harness)
        file = str(harness.settings.warehouse.duckdb_file)
    monkeypatch.setattr(sys, "argv", ["bookings.py", "--warehouse", file])
    spec = importlib.util.spec_from_file_location("bookings", ROOT / "docs" / "notebooks" / "bookings.py")
    assert spec
    assert spec.loader
    notebook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(notebook)
    _, defined = notebook.app.run()
    assert sorted(defined["bookings"].booking_id) == ["B1", "B2", "B3", "B4", "B5"]

    def plotted(chart: str) -> list[dict[str, Any]]:
        [rows] = defined[chart].to_dict()["datasets"].values()
        return list(rows)

    assert sum(row["bookings"] for row in plotted("per_day")) == 5
    assert plotted("no_shows_by_service") == [
        {"service_name": "Call", "rate": pytest.approx(1 / 3), "meetings": 3}
    ]
    assert [row["meetings"] for row in plotted("no_shows_by_staff")] == [3]
    assert {row["days"]: row["bookings"] for row in plotted("lead_times")}[2] == 4
    assert [row["revenue"] for row in plotted("revenue")] == [25]
    assert [row["cancel_reason"] for row in plotted("cancellations")] == ["ill"]
