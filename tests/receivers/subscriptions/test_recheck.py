"""The periodic check: it looks, repairs where it may, and says what keeps a vendor from delivering."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ingest.errors import ConfigurationError
from ingest.settings import Settings
from ingest.telemetry import SUBSCRIPTION_STATE
from ingest.vendors import load_account_class
from ingest.warehouse.deliveries import Arrivals
from receivers.subscriptions.check import check_subscriptions, check_url, unchecked_spans
from receivers.subscriptions.state import open_state
from tests.receivers.subscriptions.installation import SOMEBODY, Installation, open_installation
from tests.support.accounts import SECRET

LAST = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _settings_are_found(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_CONFIG", str(installation.config))


def check(settings: Settings, arrivals: Arrivals = Arrivals(last=LAST)) -> dict[str, str]:  # noqa: B008 - it is frozen
    """Check, while the warehouse says this of the webhooks; return what is wrong, by source."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("receivers.subscriptions.apply.arrivals", lambda *_: arrivals)
        return check_subscriptions(settings)


def allowed(installation: Installation, *, repair: bool) -> Settings:
    text = installation.config.read_text()
    installation.config.write_text(
        text.replace("[webhooks]\n", f"[webhooks]\nrepair = {str(repair).lower()}\n")
    )
    return installation.settings


def state(installation: Installation, account: str = "sales") -> dict[str, float]:
    """Return the metric, without what is 0."""
    labels = {"vendor": installation.vendor.name, "account": account}
    samples = [sample for metric in SUBSCRIPTION_STATE.collect() for sample in metric.samples]
    return {
        sample.labels["state"]: sample.value
        for sample in samples
        if sample.value and labels.items() <= sample.labels.items()
    }


def test_without_leave_it_only_looks_and_tells(installation: Installation) -> None:
    (problem,) = check(allowed(installation, repair=False)).values()
    assert problem == "there is none"
    number = 3 if installation.vendor.name == "bookeo" else 1
    assert state(installation) == {"create": number}
    assert installation.vendor.subscriptions.created == 0


def test_with_leave_it_repairs_and_says_since_when_to_reconcile_until_that_was_done(
    installation: Installation,
) -> None:
    settings = allowed(installation, repair=True)
    assert [*check(settings).values()] == [""]
    accounts = list(settings.build_accounts().values())
    (span,) = unchecked_spans(settings, accounts)
    assert (span.account.name, span.since) == ("sales", LAST)
    assert installation.is_settled()
    assert state(installation) == {"keep": 3 if installation.vendor.name == "bookeo" else 1}
    assert [again.since for again in unchecked_spans(settings, accounts)] == [LAST], (
        "as long as nobody knows of it"
    )
    open_state(settings, span.account).note_checked(span.since)
    assert unchecked_spans(settings, accounts) == []


def test_what_may_be_another_installations_is_left_to_a_person(installation: Installation) -> None:
    installation.apply()
    before = installation.vendor.subscriptions.all()
    installation.write(public_url="https://copy.example.com")
    check(allowed(installation, repair=True))
    assert installation.vendor.subscriptions.all() == before
    assert set(state(installation)) == {"replace"}


def test_a_vendor_that_does_not_answer_is_unknown_and_stops_nothing(installation: Installation) -> None:
    other = installation.config.read_text().partition("[accounts.sales]")[2].replace("/sales", "/nobody")
    installation.config.write_text(installation.config.read_text() + "\n[accounts.other]\n" + other)
    secrets = installation.folder / "ingest.secrets.toml"
    secrets.write_text(
        secrets.read_text()
        + secrets.read_text().partition("\n")[2].replace("accounts.sales", "accounts.other")
    )
    problems = check(allowed(installation, repair=True))
    assert [source.rpartition("/")[2] for source in problems] == ["sales"]
    assert state(installation, "other") == {"unknown": 1}
    assert "unknown" not in state(installation)
    assert installation.vendor.ours


def test_others_are_counted_and_left_alone(installation: Installation) -> None:
    theirs = installation.vendor.subscriptions.add(SOMEBODY, ["customers.deleted"])
    check(allowed(installation, repair=True), Arrivals(last=LAST + timedelta(days=1)))
    assert theirs in installation.vendor.subscriptions.all()
    assert state(installation)["leave"] == 1


def test_what_another_machine_made_is_left_to_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_installation(tmp_path / "production", "oncehub") as production:
        production.apply()
        laptop = Installation(tmp_path / "laptop", production.vendor)
        monkeypatch.setenv("INGEST_CONFIG", str(laptop.config))
        check(allowed(laptop, repair=True))
        assert production.is_settled()
        assert state(laptop) == {"take_over": 1}


def test_what_was_made_by_hand_is_as_wanted_once_it_delivers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_installation(tmp_path / "by-hand", "calendly") as installation:
        installation.believe(SECRET)
        monkeypatch.setenv("INGEST_CONFIG", str(installation.config))
        subscription = installation.vendor.subscriptions.add(
            installation.vendor.url, installation.events, SECRET
        )
        settings = allowed(installation, repair=True)
        check(settings, Arrivals())
        assert state(installation) == {"take_over": 1}
        with capture_logs() as logs:
            check(settings, Arrivals(last=subscription.created_at + timedelta(seconds=1)))
        assert state(installation) == {"keep": 1}
        assert not [line for line in logs if line["log_level"] == "warning"]
        check(settings, Arrivals())
        assert state(installation) == {"keep": 1}, (
            "it is remembered, whether the warehouse can be asked or not"
        )
        assert installation.vendor.ours == [subscription]


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
