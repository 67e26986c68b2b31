"""The pages of an account, of what is live and of subscriptions, before anything was loaded; and charts."""

from datetime import UTC, datetime, timedelta
from typing import Any

from ingest.dashboard.charts import HEIGHT, WIDTH, bar_chart
from tests.ingest.dashboard.conftest import Browse
from tests.ingest.dashboard.forms import submit
from tests.support.settings import Tree

MIDNIGHT = datetime(2026, 5, 1, tzinfo=UTC)


def hours(*values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return rows of hours from midnight on."""
    return [{"hour": MIDNIGHT + timedelta(hours=number), **value} for number, value in enumerate(values)]


def test_the_largest_value_is_as_high_as_the_chart_and_the_smallest_still_shows() -> None:
    chart = bar_chart(hours({"n": 1_000_000}, {"n": 1}, {"n": 0}, {"n": None}), ["n"])
    large, small = chart.bars
    assert (chart.largest, chart.days) == (1_000_000, [(0.0, "01 May")])
    assert (large.y, large.y + large.height) == (4, HEIGHT - 16)
    assert small.height == 1
    assert small.x == WIDTH / 4
    assert "01:00Z: 1 n" in small.text


def test_a_chart_without_values_has_no_bars() -> None:
    assert bar_chart([], ["n"]).largest is None
    assert bar_chart(hours({"n": None}), ["n"]).bars == []
    assert bar_chart(hours({"n": 0}), ["n"]).bars == []


def test_an_account_of_which_nothing_came_has_all_hours_open_and_none_to_come(browse: Browse) -> None:
    browser = browse()
    report = browser.get("/account.json?name=sales&span=1d").json()
    assert report["account"]["name"] == "calendly/sales"
    assert len(report["hours"]) == 24
    assert {hour["deliveries"] for hour in report["hours"]} == {0}
    today, yesterday = report["calendar"][:2]
    assert {hour["verdict"] for hour in yesterday["hours"]} == {"open"}
    assert {hour and hour["verdict"] for hour in today["hours"]} <= {"open", None}
    assert len(browser.get("/account.csv?name=sales&span=1d").text.splitlines()) == 25


def test_what_an_account_page_cannot_show_is_refused(browse: Browse) -> None:
    browser = browse()
    assert browser.get("/account?name=nobody").status_code == 400
    assert browser.get("/account?name=sales&span=99y").status_code == 400


def test_what_is_live_follows_the_feed_with_its_filter_or_asks_again_without_a_feed(
    browse: Browse, dashboard_tree: Tree
) -> None:
    assert 'data-refresh="5"' in browse().get("/live").text
    dashboard_tree["feed"] = {"enabled": True}
    page = browse().get("/live?account=sales&status=cancelled").text
    assert 'data-refresh="0"' in page
    assert 'data-source="/api/changes?account=sales&amp;since=' in page, "also what is no longer cancelled"
    assert 'data-status="cancelled"' in page
    assert "ingest tail --account sales --status cancelled" in page


def test_subscriptions_are_changed_only_by_a_plan_that_found_something(browse: Browse) -> None:
    browser = browse()
    accounts = browser.get("/subscriptions.json").json()["accounts"]
    assert {account["account"]: account["made_by"] for account in accounts} == {
        "sales": "hand",
        "support": "hand",
    }
    assert submit(browser, "/subscriptions/apply", plan="none").status_code == 400
    assert submit(browser, "/subscriptions/plan", account="nobody").status_code == 400
