"""A month of 8,000 bookings at four vendors, a tenth of its webhooks lost, some doubled, all out of order."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from tests.month.month import MonthPlan
from tests.month.run import run_month

# The most requests to check that a new key is the account's: whose it is, and known bookings.
_KEY_CHECK = 11


def test_one_reconcile_of_a_month_leaves_no_difference_and_counts_exactly_what_was_lost(
    tmp_path: Path,
) -> None:
    month_report = run_month(tmp_path, MonthPlan(datetime.now(UTC), bookings=8_000))
    lost = Counter(account for account, _ in month_report.month.lost)
    first, second = month_report.runs
    assert len(month_report.month.changes) > 12_000
    wrong = {(difference.account, difference.booking_id) for difference in month_report.differences[0]}
    assert wrong <= month_report.month.lost_bookings()
    assert len(wrong) > 500
    assert {report["account"]: report["missed"] for report in first.reports} == lost
    assert {report["account"]: report["repaired"] for report in first.reports} == lost
    assert month_report.differences[1] == []
    assert {report["missed"] for report in second.reports} == {0}
    assert second.total("seen") == second.total("matched") == 8_000
    assert month_report.differences[2] == []


def test_a_month_takes_no_more_requests_than_its_pages_and_what_differs(tmp_path: Path) -> None:
    """Leave out the check of held meetings, without which Calendly's lost no-shows are not repaired."""
    month_report = run_month(
        tmp_path, MonthPlan(datetime.now(UTC), bookings=2_000), calendly={"check_no_shows": False}
    )
    for report in month_report.runs[0].reports:
        # Once: the token's user (Calendly), the names of owners (OnceHub), of services and of resources
        # (Appointedd).
        lookups = {"calendly": 1, "oncehub": 1, "appointedd": 2}.get(report["account"], 0) + _KEY_CHECK
        assert report["least_requests"] <= report["requests"] <= report["least_requests"] + lookups, report
    remaining = {
        (difference.account, difference.column, difference.expected)
        for difference in month_report.differences[1]
    }
    assert remaining <= {("calendly", "status", "no_show")}
    assert remaining, "or the look at held meetings finds nothing"
