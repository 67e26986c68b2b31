"""`ingest up`: webhooks become rows, and neither a stop nor a crash of any part loses or doubles one."""

import os
import signal
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from ingest.log import Record
from ingest.log.sqlite import SqliteProducer
from ingest.simulator.account import differences
from ingest.simulator.world import Change
from ingest.times import parse_instant
from tests.e2e.product import DeliveringVendors, Product, Up, account_name, delivering
from tests.support.accounts import BEGINNING, SECRET
from tests.support.polling import PATIENCE, is_healthy, wait_for
from tests.support.processes import ingest

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="processes are watched in /proc, which only Linux has"
)

CALENDLY = account_name("calendly")
URL = f"/webhooks/calendly/{CALENDLY}"

# Others' queries rely on these names.
COLUMNS = [
    "vendor", "account", "booking_id", "group_id", "status", "starts_at", "ends_at", "timezone",
    "created_at", "updated_at", "version", "service_id", "service_name", "staff", "staff_name",
    "location", "customer_id", "customer_name", "customer_email", "customer_phone", "participants",
    "price", "currency", "cancel_reason", "cancelled_by", "rescheduled_from", "rescheduled_to",
    "first_seen_at", "last_event_id", "last_via", "loaded_at", "gone_at", "answers", "tracking", "guests",
    "cancelled_at", "conference_url", "column_versions",
]  # fmt: skip


def bookings_of(product: Product) -> dict[str, Change]:
    """Return a new booking at each account."""
    world, bookings = product.world(), dict[str, Change]()
    while len(bookings) < len(product.accounts):
        [change] = world.step(BEGINNING)
        bookings.setdefault(change.account, change)
    return bookings


def post(product: Product, change: Change, *, path: str = "", tampered: bytes = b"") -> int:
    """Post the webhook, to the account's URL or to another path, and return the status."""
    account = product.accounts[change.account]
    webhook = account.webhook(change)
    headers = account.headers(webhook, datetime.now(UTC))
    url = product.url + path if path else account.url
    if webhook.query:
        url += f"?{webhook.query}"
    return httpx.post(url, content=webhook.body + tampered, headers=headers).status_code


def as_queried(value: Any) -> Any:
    """Return an expected value as `query --json` prints it."""
    if hasattr(value, "isoformat"):
        return value.isoformat().replace("+00:00", "Z")
    return float(value) if hasattr(value, "as_tuple") else value


def test_signed_deliveries_of_all_vendors_become_rows(tmp_path: Path) -> None:
    product = Product(tmp_path)
    changes = bookings_of(product)
    with product.running():
        assert post(product, changes[CALENDLY], tampered=b" ") == 401
        assert {name: post(product, change) for name, change in changes.items()} == dict.fromkeys(
            changes, 202
        )
        wait_for(lambda: product.count("bookings") == len(changes), "every delivery is a row")
        rows = ingest(tmp_path, "query", "--json", "select * from bookings").json
        events = {
            event["id"] for event in ingest(tmp_path, "query", "--json", "select * from booking_events").json
        }
        status = ingest(tmp_path, "status", "--json").json
    assert {row["account"] for row in rows} == set(changes)
    for row in rows:
        assert list(row) == [*COLUMNS, "_lookup_key", "_lookup_run"]
        expected = product.accounts[row["account"]].expected(changes[row["account"]].meeting)
        assert {column: row[column] for column in expected} == {
            column: as_queried(value) for column, value in expected.items()
        }
        assert (row["vendor"], row["last_via"]) == (product.accounts[row["account"]].vendor, "webhook")
        assert row["last_event_id"] in events
        assert parse_instant(row["first_seen_at"]) < parse_instant(row["loaded_at"])
    assert len(events) == len(changes)
    assert {entry["topic"]: entry["lag"] for entry in status["log"]["topics"]}["bookings.calendly"] == 0
    assert {
        entry["account"]: entry["bookings"] for entry in status["warehouse"]["accounts"]
    } == dict.fromkeys(changes, 1)


def check_nothing_was_lost(product: Product, vendors: DeliveringVendors) -> None:
    """Check that every webhook is one event, and every booking as it truly is."""
    wait_for(
        lambda: product.count("booking_events") >= vendors.stats.webhooks,
        "every accepted webhook is an event",
    )
    assert vendors.stats.given_up == 0
    assert product.count("booking_events") == vendors.stats.webhooks
    assert product.count("dead_letters") == 0
    assert differences(vendors.world, product.accounts, product.query("select * from bookings")) == []


def test_a_killed_child_is_started_again_and_nothing_is_lost(tmp_path: Path) -> None:
    product = Product(tmp_path, workers=2)
    with product.running() as up, delivering(product) as vendors:
        for command in ("consume", "receive"):
            vendors.wait_for_more(10)
            kill_and_see_it_come_back(up, command)
        vendors.wait_for_more(10)
        vendors.stop()
        check_nothing_was_lost(product, vendors)


def kill_and_see_it_come_back(up: Up, command: str) -> None:
    victim = up.child(command)
    assert victim is not None
    os.kill(victim.pid, signal.SIGKILL)
    wait_for(lambda: (child := up.child(command)) and child != victim, f"{command} is started again")


def test_when_up_is_killed_its_children_leave_and_the_next_one_goes_on_in_their_place(tmp_path: Path) -> None:
    product = Product(tmp_path)
    with delivering(product) as vendors:
        up = product.launch()
        up.wait_until_accepting()
        vendors.wait_for_more(10)
        family = up.family()
        assert len(family) >= 2
        up.kill()
        wait_for(lambda: not any(process.alive for process in family), "the children leave by themselves")
        with product.running():
            vendors.wait_for_more(10)
            vendors.stop()
            check_nothing_was_lost(product, vendors)


def test_a_port_that_is_taken_ends_it_all_with_the_setting_to_change(tmp_path: Path) -> None:
    product = Product(tmp_path)
    with socket.create_server(("127.0.0.1", product.settings.receiver.port)):
        up = product.launch()
        family = wait_for(up.family, "it starts its children")
        assert up.wait() == 2
    assert "choose another receiver.port" in up.log_tail()
    assert [process for process in family if process.alive] == []


def test_at_the_dead_letter_limit_the_consumer_stops_and_says_why_and_webhooks_are_still_taken(
    tmp_path: Path,
) -> None:
    product = Product(tmp_path)
    config = tmp_path / "ingest.toml"
    config.write_text(config.read_text().replace("[consumer]", "[consumer]\ndead_letter_limit = 5"))
    producer = SqliteProducer(tmp_path / "data" / "log.db")
    producer.append("bookings.calendly", [Record("key", b"{}")] * 5).result(PATIENCE)
    producer.close()
    up = product.launch()
    wait_for(lambda: "up.consumer_stopped" in up.log_tail(), "the consumer stopped")
    assert "5 records in a row" in up.log_tail()
    assert httpx.get(f"{product.url}/healthz").status_code == 200
    assert up.stop() == 4


@pytest.mark.parametrize("mistake", ["not toml", "unknown name", "mode"])
def test_a_mistake_in_the_settings_stops_nothing_and_children_come_back_with_the_last_that_were_whole(
    tmp_path: Path, mistake: str
) -> None:
    product = Product(tmp_path, workers=2)
    changes = bookings_of(product)
    config, secrets = tmp_path / "ingest.toml", tmp_path / "ingest.secrets.toml"
    valid_config = config.read_text()
    with product.running() as up:
        if mistake == "mode":
            secrets.chmod(0o644)
        else:
            config.write_text(
                f"{valid_config}[accounts.sale" if mistake == "not toml" else f"reciever = 1\n{valid_config}"
            )
        for command in ("consume", "receive"):
            kill_and_see_it_come_back(up, command)
        wait_for(lambda: is_healthy(product.url), "the receiver is back")
        assert post(product, changes[CALENDLY]) == 202
        [*_, worker] = [process for process in up.family() if "spawn_main" in process.command]
        os.kill(worker.pid, signal.SIGKILL)
        wait_for(lambda: worker not in up.family(), "the worker is gone")
        others = [change for name, change in changes.items() if name != CALENDLY]
        assert [post(product, change) for change in others] == [202] * len(others)
        assert "secrets.not_reloaded" in up.log_tail()
        assert SECRET not in up.log_tail()
        if mistake == "mode":
            secrets.chmod(0o600)
        config.write_text(valid_config.replace(CALENDLY, "more"))
        secrets.write_text(secrets.read_text().replace(CALENDLY, "more"))
        wait_for(
            lambda: post(product, changes[CALENDLY], path="/webhooks/calendly/more") == 202,
            "the mended settings are live",
        )
        wait_for(lambda: product.count("bookings") == len(changes) + 1, "every delivery is a row")


def test_reconciliation_starts_with_the_first_account_that_has_a_key_and_again_after_a_mistake(
    tmp_path: Path,
) -> None:
    product = Product(tmp_path)
    secrets = tmp_path / "ingest.secrets.toml"
    with product.running() as up:
        assert up.child("reconcile") is None
        text = secrets.read_text().replace(
            f"[accounts.{CALENDLY}]", f'[accounts.{CALENDLY}]\napi_token = "no-such-token"'
        )
        config = tmp_path / "ingest.toml"
        valid_config = config.read_text().replace(
            f"[accounts.{CALENDLY}]", f'[accounts.{CALENDLY}]\napi_url = "http://127.0.0.1:9"'
        )
        valid_config = valid_config.replace("[consumer]", "[reconcile]\nadmin_port = 0\n[consumer]", 1)
        config.write_text(valid_config)
        secrets.write_text(text)
        wait_for(lambda: up.child("reconcile"), "reconciliation starts")
        config.write_text("[recon")
        kill_and_see_it_come_back(up, "reconcile")
        config.write_text(valid_config)
        kill_and_see_it_come_back(up, "reconcile")
