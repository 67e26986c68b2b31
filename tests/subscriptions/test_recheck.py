"""What a process that nobody looks at does every hour: look, repair if it may, and say what is to be reconciled."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ingest.errors import ConfigurationError
from ingest.settings import Settings
from ingest.telemetry import SUBSCRIPTION_STATE
from ingest.vendors import load_account_class
from receivers.subscriptions.check import check_url, recheck, settled
from receivers.subscriptions.plan import Heard
from tests.subscriptions.desk import SECRET, SOMEBODY, Desk, opened

LAST = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _settings_are_found(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_CONFIG", str(desk.config))


def allowed(desk: Desk, *, repair: bool) -> Settings:
    text = desk.config.read_text()
    desk.config.write_text(text.replace("[webhooks]\n", f"[webhooks]\nrepair = {str(repair).lower()}\n"))
    return desk.settings


def state(desk: Desk, account: str = "sales") -> dict[str, float]:
    """The metric, without what is 0."""
    labels = {"vendor": desk.counter.vendor, "account": account}
    samples = [sample for metric in SUBSCRIPTION_STATE.collect() for sample in metric.samples]
    return {
        sample.labels["state"]: sample.value
        for sample in samples
        if sample.value and labels.items() <= sample.labels.items()
    }


def heard(_: object) -> Heard:
    return Heard(last=LAST)


def test_without_leave_it_only_looks_and_tells(desk: Desk) -> None:
    assert recheck(allowed(desk, repair=False), heard) == []
    number = 3 if desk.counter.vendor == "bookeo" else 1
    assert state(desk) == {"create": number}
    assert desk.counter.subscriptions.created == 0


def test_with_leave_it_repairs_and_says_since_when_to_reconcile_until_that_was_done(desk: Desk) -> None:
    settings = allowed(desk, repair=True)
    (hole,) = recheck(settings, heard)
    assert (hole.account.name, hole.since) == ("sales", LAST)
    assert desk.is_settled()
    assert state(desk) == {"keep": 3 if desk.counter.vendor == "bookeo" else 1}
    assert [again.since for again in recheck(settings, heard)] == [LAST], (
        "as long as nobody has reconciled it"
    )
    settled(settings, hole)
    assert recheck(settings, heard) == []


def test_what_may_be_another_installations_is_left_to_a_person(desk: Desk) -> None:
    desk.apply()
    before = desk.counter.subscriptions.all()
    desk.write(public_url="https://copy.example.com")
    recheck(allowed(desk, repair=True), heard)
    assert desk.counter.subscriptions.all() == before
    assert set(state(desk)) == {"replace"}


def test_a_vendor_that_does_not_answer_is_unknown_and_stops_nothing(desk: Desk) -> None:
    other = desk.config.read_text().partition("[accounts.sales]")[2].replace("/sales", "/nobody")
    desk.config.write_text(desk.config.read_text() + "\n[accounts.other]\n" + other)
    secrets = desk.folder / "ingest.secrets.toml"
    secrets.write_text(
        secrets.read_text()
        + secrets.read_text().partition("\n")[2].replace("accounts.sales", "accounts.other")
    )
    recheck(allowed(desk, repair=True), heard)
    assert state(desk, "other") == {"unknown": 1}
    assert "unknown" not in state(desk)
    assert desk.counter.ours


def test_others_are_counted_and_left_alone(desk: Desk) -> None:
    theirs = desk.counter.subscriptions.add(SOMEBODY, ["customers.deleted"])
    recheck(allowed(desk, repair=True), lambda _: Heard(last=LAST + timedelta(days=1)))
    assert theirs in desk.counter.subscriptions.all()
    assert state(desk)["leave"] == 1


def test_what_another_machine_made_is_left_to_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "production", "oncehub") as production:
        production.apply()
        laptop = Desk(tmp_path / "laptop", production.counter)
        monkeypatch.setenv("INGEST_CONFIG", str(laptop.config))
        recheck(allowed(laptop, repair=True), heard)
        assert production.is_settled()
        assert state(laptop) == {"take_over": 1}


def test_what_was_made_by_hand_is_as_wanted_once_it_delivers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "by-hand", "calendly") as desk:
        desk.believe(SECRET)
        monkeypatch.setenv("INGEST_CONFIG", str(desk.config))
        made = desk.counter.subscriptions.add(desk.counter.url, desk.account.settings.events, SECRET)  # type: ignore[attr-defined]
        settings = allowed(desk, repair=True)
        recheck(settings, lambda _: Heard())
        assert state(desk) == {"take_over": 1}
        with capture_logs() as logs:
            recheck(settings, lambda _: Heard(last=made.created_at + timedelta(seconds=1)))
        assert state(desk) == {"keep": 1}
        assert not [line for line in logs if line["log_level"] == "warning"]
        recheck(settings, lambda _: Heard())
        assert state(desk) == {"keep": 1}, "it is remembered, whether the warehouse can be asked or not"
        assert desk.counter.ours == [made]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "https://localhost", "http://hooks.example.com", "https://[::1]:8080"]
)
def test_a_url_that_no_vendor_can_reach_safely_is_refused_except_by_a_simulated_one(url: str) -> None:
    account = {"vendor": "oncehub", "name": "sales"}
    real, simulated = (
        load_account_class("oncehub").settings_model.model_validate(account | api)
        for api in ({}, {"api_url": "http://127.0.0.1:1"})
    )
    check_url(load_account_class("oncehub")(simulated, url))
    check_url(load_account_class("oncehub")(real, "https://hooks.example.com"))
    with pytest.raises(ConfigurationError, match="public_url"):
        check_url(load_account_class("oncehub")(real, url))
