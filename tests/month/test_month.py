"""A month of 8,000 bookings at four vendors, a tenth of its webhooks lost, some doubled, all out of order."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from tests.month.rehearsal import rehearse
from tests.month.story import Plan

# Requests at most by which a key that was never used before is proven to be the account's: who it belongs to, and known bookings.
_PROOF = 11


def test_one_reconcile_of_a_month_leaves_no_difference_and_counts_exactly_what_was_lost(
    tmp_path: Path,
) -> None:
    outcome = rehearse(tmp_path, Plan(datetime.now(UTC), bookings=8_000))
    lost = Counter(account for account, _ in outcome.month.lost)
    first, second = outcome.runs
    assert len(outcome.month.changes) > 12_000
    wrong = {(one.account, one.booking_id) for one in outcome.wrong[0]}
    assert wrong <= outcome.month.lost_bookings()
    assert len(wrong) > 500
    assert {report["account"]: report["missed"] for report in first.reports} == lost
    assert {report["account"]: report["repaired"] for report in first.reports} == lost
    assert outcome.wrong[1] == []
    assert {report["missed"] for report in second.reports} == {0}
    assert second.total("seen") == second.total("matched") == 8_000
    assert outcome.wrong[2] == []


def test_a_month_takes_no_more_requests_than_its_pages_and_what_differs(tmp_path: Path) -> None:
    """Without the look at each held meeting, which only Calendly's no-shows need: those that are lost then stay so."""
    outcome = rehearse(tmp_path, Plan(datetime.now(UTC), bookings=2_000), calendly={"check_no_shows": False})
    for report in outcome.runs[0].reports:
        # Once: who am I (Calendly), the names of owners (OnceHub), of services and of resources (Appointedd).
        named = {"calendly": 1, "oncehub": 1, "appointedd": 2, "bookeo": 0}[report["account"]] + _PROOF
        assert report["least_requests"] <= report["requests"] <= report["least_requests"] + named, report
    left = {(one.account, one.column, one.expected) for one in outcome.wrong[1]}
    assert left <= {("calendly", "status", "no_show")}
    assert left, "or the look at held meetings finds nothing"
