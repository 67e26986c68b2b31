"""After a subscription was made anew, what its vendor could not deliver is in the warehouse, by one apply."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingest.cli.webhooks import _check_spans
from ingest.settings.secrets_file import SecretsFile
from ingest.warehouse.deliveries import arrivals, arrived_types, last_signed
from receivers.subscriptions.apply import Permissions
from receivers.subscriptions.check import open_manager, unchecked_spans
from receivers.subscriptions.plan import Action
from receivers.subscriptions.webhook_secrets import FileSecretStore
from tests.ingest.simulator.rest.served import subscriptions_of
from tests.receivers.reconcile.pipeline import Pipeline

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("vendor", ["calendly", "oncehub", "bookeo"])
def test_what_was_missed_while_nothing_was_registered_is_repaired_and_the_next_plan_is_empty(
    tmp_path: Path, vendor: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Pipeline(tmp_path, [vendor]).open() as pipeline:
        subscriptions_of(pipeline.rest[vendor]).clear()
        pipeline.deliver(pipeline.simulate(5))
        pipeline.simulate(10)
        assert pipeline.differences(), "webhooks missed something"
        settings = pipeline.harness.settings
        (account,) = settings.build_accounts().values()
        newest = max(pipeline.harness.column("select received_at from booking_events"))
        store = FileSecretStore(account.settings, SecretsFile(tmp_path / "ingest.secrets.toml"))
        manager = open_manager(settings, account, store)
        manager.apply(Permissions())
        (span,) = unchecked_spans(settings, [account])
        assert span.since == newest
        assert _check_spans(settings, [account])
        assert re.search(
            rf"(?m)^{vendor}: \d+ bookings compared, (\d+) were missing or out of date, \1 of these repaired",
            capsys.readouterr().out,
        )
        assert pipeline.differences() == []
        assert unchecked_spans(settings, [account]) == []
        assert {step.action for step in manager.plan()} == {Action.KEEP}, (
            "what reconciliation found does not speak against a new one"
        )
        manager.close()


def test_what_came_is_told_by_type_and_by_which_secret(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["appointedd"]).open() as pipeline:
        settings = pipeline.harness.settings
        assert arrivals(settings, "appointedd", "appointedd").last is None
        assert last_signed(settings, "appointedd", "appointedd", BEGINNING, ["2", "3"]) == (None, None)
        pipeline.deliver(pipeline.simulate(5))
        newest = max(pipeline.harness.column("select received_at from booking_events"))
        assert arrivals(settings, "appointedd", "appointedd").last == newest
        assert arrivals(settings, "appointedd", "appointedd", newest).last == newest
        assert arrivals(settings, "appointedd", "appointedd", BEGINNING).last is None
        assert arrived_types(settings, "appointedd", "appointedd")["appointedd.booking_created"] <= newest
        assert last_signed(settings, "appointedd", "appointedd", BEGINNING, ["2", "3"]) == (newest, None)
        assert last_signed(settings, "appointedd", "appointedd", BEGINNING, ["1"]) == (None, newest)
        assert last_signed(settings, "appointedd", "appointedd", newest, ["2"]) == (None, None)
        assert arrivals(settings, "appointedd", "somebody") == arrivals(settings, "calendly", "appointedd")
