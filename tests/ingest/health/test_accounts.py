"""The verdict on each account: the worst of what concerns it, why, and the command to run next."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ingest.health.accounts import AccountHealth, Verdict, accounts_health, quantile
from ingest.health.facts import Facts, Part
from ingest.settings import Settings

NOW = datetime(2026, 6, 10, 12, tzinfo=UTC)
SETTINGS = Settings.model_validate(
    {"accounts": {"sales": {"vendor": "calendly", "api_token": "t"}, "shop": {"vendor": "appointedd"}}}
)
READY = [Part(name, "ready", "127.0.0.1:1") for name in ("receiver", "consumer", "reconciliation")]


def row(vendor: str, account: str, **changes: Any) -> dict[str, Any]:
    """Return what the warehouse has of an account that is well."""
    return {
        "vendor": vendor,
        "account": account,
        "bookings": 7,
        "last_delivery": NOW - timedelta(minutes=3),
        "in_hour": 5,
        "usual_in_hour": 4,
    } | changes


def facts(*rows: dict[str, Any], **changes: Any) -> Facts:
    """Return the facts of a healthy product; these rows stand for both accounts' of the warehouse."""
    warehouse = {
        "accounts": list(rows) or [row("calendly", "sales"), row("appointedd", "shop")],
        "reconciliations": [],
        "open_dead_letters": {},
    }
    well = Facts(READY, {"topics": []}, {"files": []}, warehouse, [])
    return replace(well, **changes)


def health(of: Facts, account: str = "sales") -> AccountHealth:
    """Return the health of an account by these facts."""
    return next(health for health in accounts_health(of, SETTINGS, NOW) if health.account == account)


def topic(name: str, age: timedelta, lag: int = 3) -> dict[str, Any]:
    """Return the facts of a log in which one topic waits to be loaded."""
    return {"topics": [{"topic": name, "partition": 0, "lag": lag, "waiting_since": NOW - age}]}


def test_an_account_that_is_well_says_when_the_last_delivery_came_and_needs_no_command() -> None:
    sales = health(facts())
    assert (sales.verdict, sales.command, sales.bookings) == (Verdict.HEALTHY, "", 7)
    assert sales.why == "deliveries arrive and are loaded; the last one came 3 min ago"


@pytest.mark.parametrize(
    ("changes", "verdict", "why", "command"),
    [
        (
            {"parts": [replace(READY[0], state="stopped"), *READY[1:]]},
            Verdict.DEGRADED,
            "receiver: not running",
            "ingest up",
        ),
        (
            {"parts": [replace(READY[0], state="not ready", reasons=("log: full",)), *READY[1:]]},
            Verdict.DEGRADED,
            "log: full",
            "ingest check",
        ),
        ({"log": {"error": "no broker"}}, Verdict.UNKNOWN, "log: no broker", "ingest check"),
        (
            {"warehouse": {"error": "locked; see `ingest check`"}},
            Verdict.UNKNOWN,
            "warehouse: locked",
            "ingest check",
        ),
        (
            {
                "log": {"error": "no broker"},
                "parts": [replace(READY[0], state="stopped"), *READY[1:]],
            },
            Verdict.DEGRADED,
            "receiver",
            "ingest up",
        ),
    ],
)
def test_what_all_accounts_share_decides_for_each_of_them(
    changes: dict[str, Any], verdict: Verdict, why: str, command: str
) -> None:
    for account in ("sales", "shop"):
        found = health(facts(**changes), account)
        assert (found.verdict, found.command) == (verdict, command)
        assert why in found.why


def test_an_account_is_not_blamed_for_another_one() -> None:
    letters = {"open_dead_letters": {"shop": 2}, "dead_letters_by_reason": {"shop": {"load_refused": 2}}}
    troubled = facts(log=topic("bookings.appointedd", timedelta(hours=1)))
    troubled = replace(troubled, warehouse=troubled.warehouse | letters)
    assert health(troubled, "sales").verdict is Verdict.HEALTHY
    shop = health(troubled, "shop")
    assert (shop.verdict, shop.lag, shop.waiting_since) == (Verdict.DEGRADED, 3, NOW - timedelta(hours=1))
    assert shop.dead_letters == {"load_refused": 2}


def test_partitions_that_were_read_again_are_their_vendors_own() -> None:
    labels = {"topic": "bookings.appointedd", "partition": "0", "because": "log"}
    consumer = replace(READY[1], samples=(("ingest_read_again_total", labels, 1.0),))
    again = facts(parts=[READY[0], consumer, READY[2]])
    assert (health(again, "sales").verdict, health(again, "shop").verdict) == (
        Verdict.HEALTHY,
        Verdict.WARNING,
    )
    assert health(again, "shop").command == "ingest reconcile --since 30d"


@pytest.mark.parametrize(("is_silent", "verdict"), [(True, Verdict.WARNING), (False, Verdict.HEALTHY)])
def test_silence_that_the_rhythm_does_not_explain_is_a_warning(is_silent: bool, verdict: Verdict) -> None:
    silent = health(facts(row("calendly", "sales", is_silent=is_silent, usual_since_delivery=40)))
    assert silent.verdict is verdict
    assert silent.command == ("ingest webhooks test sales" if is_silent else "")
    assert ("no webhook has come for 3 min, in which 40 are usual" in silent.why) is is_silent


def test_freshness_is_read_from_the_consumers_buckets() -> None:
    labels = {"vendor": "calendly", "account": "sales"}
    buckets = {"0.5": 50.0, "1.0": 100.0, "+Inf": 100.0}
    samples = tuple(
        ("ingest_freshness_seconds_bucket", {**labels, "le": bound}, count)
        for bound, count in buckets.items()
    )
    sales = health(facts(parts=[READY[0], replace(READY[1], samples=samples), READY[2]]))
    assert [sales.freshness_p50, sales.freshness_p95] == pytest.approx([0.5, 0.95])
    assert health(facts()).freshness_p50 is None


@pytest.mark.parametrize(
    ("buckets", "share", "value"),
    [
        ({}, 0.5, None),
        ({"1.0": 0.0, "+Inf": 0.0}, 0.5, None),
        ({"1.0": 10.0, "2.0": 10.0, "+Inf": 10.0}, 0.5, 0.5),
        ({"1.0": 1.0, "+Inf": 10.0}, 0.95, 1.0),
        ({"1.0": 0.0, "2.0": 4.0, "+Inf": 4.0}, 0.25, 1.25),
    ],
)
def test_a_quantile_lies_within_its_bucket(
    buckets: dict[str, float], share: float, value: float | None
) -> None:
    assert quantile(buckets, share) == (value if value is None else pytest.approx(value))
