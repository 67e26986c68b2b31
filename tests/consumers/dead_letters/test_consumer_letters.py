"""Tests of the letters of the consumer and of reconciliation.

They are loaded when they can be, as the same events, and never twice.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from consumers import batch
from ingest.errors import PayloadError
from ingest.event import Event
from ingest.log import Record
from ingest.vendors.bookeo import Bookeo
from ingest.vendors.oncehub import Oncehub
from receivers.reconcile.report import Report
from tests.consumers.dead_letters.product import Product
from tests.consumers.samples import TOPIC, sample
from tests.receivers.in_process import writing_to
from tests.receivers.reconcile.pipeline import Pipeline
from tests.support.processes import Result, ingest
from tests.support.settings import write_settings

CRASH = KeyError("ada@example.com")
EVENT_ROWS = (
    "select id, source, type, subject, time, received_at, via, signed_by, data from booking_events order by"
    " id"
)


def load_while_broken(product: Product, *events: Event) -> None:
    with product.broken(Oncehub, "booking_of_webhook", CRASH):
        product.harness.load(*events)


def test_what_a_bug_set_aside_is_loaded_with_the_identity_it_always_had(product: Product) -> None:
    event = replace(sample(1, "B1"), signed_by="2")
    load_while_broken(product, event)
    (letter,) = product.listed()
    assert (letter["reason"], letter["detail"], letter["loaded"]) == ("mapping_crashed", "KeyError", False)
    assert (letter["vendor"], letter["account"], letter["position"]) == ("oncehub", "support", f"{TOPIC}/0/0")
    assert product.redriven(letter["id"]) == {letter["id"]: "redriven"}
    product.harness.load()
    (row,) = product.harness.rows(EVENT_ROWS)
    assert (row["id"], row["source"], row["type"], row["subject"]) == (
        event.id,
        event.source,
        event.type,
        event.subject,
    )
    assert (row["time"], row["received_at"], row["via"], row["signed_by"]) == (
        event.time,
        event.received_at,
        "webhook",
        "2",
    )
    assert product.harness.column("select booking_id from bookings") == ["B1"]
    assert product.records(TOPIC) == [event.to_record()] * 2


def test_what_was_loaded_after_all_is_marked_and_not_redriven_again(product: Product) -> None:
    load_while_broken(product, sample(1))
    (letter,) = product.listed("--open")
    product.redriven("--all")
    product.harness.load()
    assert product.redriven("--all") == {letter["id"]: "already_loaded"}
    assert [entry["loaded"] for entry in product.listed()] == [True]
    assert product.listed("--open") == []
    assert (
        product.run("list", "--open").out == "no dead letter matches these options; without them there is 1\n"
    )
    assert product.harness.written(TOPIC) == 2


def test_redriving_twice_before_anything_is_loaded_changes_nothing(product: Product) -> None:
    load_while_broken(product, sample(1, "B1"), sample(2, "B2"))
    assert set(product.redriven("--all").values()) == {"redriven"}
    assert set(product.redriven("--all").values()) == {"redriven"}
    assert product.harness.written(TOPIC) == 6
    product.harness.load()
    assert product.harness.column("select id from booking_events order by id") == ["E1", "E2"]
    assert product.harness.column("select count(*) from bookings") == [2]
    assert product.harness.column("select count(*) from dead_letters") == [2]


def test_what_is_redriven_does_not_win_over_what_came_since(product: Product) -> None:
    load_while_broken(product, sample(1, "B1", at=0))
    product.harness.load(sample(2, "B1", at=60))
    product.redriven("--all")
    product.harness.load()
    assert product.harness.column("select service_name from bookings") == ["told by E2"]
    assert product.harness.column("select id from booking_events order by id") == ["E1", "E2"]


def test_what_is_looked_at_only_is_not_appended(product: Product) -> None:
    load_while_broken(product, sample(1))
    assert list(product.redriven("--all", "--dry-run").values()) == ["readable"]
    assert product.harness.written(TOPIC) == 1


def test_what_still_cannot_be_read_stays_while_the_rest_is_redriven(product: Product) -> None:
    good, bad = sample(1, "B1"), sample(2, "B2").to_record()
    product.harness.append_records(TOPIC, Record(bad.key, b'{"id": 7}', bad.headers))
    product.harness.load()
    load_while_broken(product, good)
    result = product.run("redrive", "--all")
    assert (result.code, result.err) == (1, "")
    assert "1 appended to the log" in result.out
    assert "1 still cannot be read, and stay where they are" in result.out
    assert "unreadable_record" in result.out
    product.harness.load()
    assert [entry["reason"] for entry in product.listed("--open")] == ["unreadable_record"]


def test_the_reason_that_is_told_is_todays(product: Product) -> None:
    record = sample(1).to_record()
    with product.broken(Oncehub, "booking_of_webhook", CRASH):
        product.harness.append_records(
            TOPIC, Record(record.key, record.value.replace(b'"B1"', b"[]"), record.headers)
        )
        product.harness.load()
    (outcome,) = product.run("redrive", "--all", "--json").json
    assert (outcome["outcome"], outcome["reason"]) == ("still_bad", "unreadable_record")


def test_a_value_that_no_column_can_hold_is_found_before_it_is_appended(product: Product) -> None:
    price = {"amount_charged": "99999999999999999999999999999.9999999999", "currency": "JPY"}
    product.harness.load(sample(1, payment_information=price))
    (outcome,) = product.run("redrive", "--all", "--json").json
    assert (outcome["outcome"], outcome["reason"]) == ("still_bad", "load_refused")
    assert product.harness.written(TOPIC) == 1


def test_an_event_that_was_set_aside_again_and_again_is_appended_once(product: Product) -> None:
    load_while_broken(product, sample(1))
    product.redriven("--all")
    load_while_broken(product)
    assert sorted(product.redriven("--all").values()) == ["redriven", "repeated"]
    product.harness.load()
    assert [entry["loaded"] for entry in product.listed()] == [True, True]


def test_what_was_set_aside_of_an_account_that_is_gone_is_read_as_the_consumer_would(
    product: Product,
) -> None:
    load_while_broken(product, sample(1))
    product.configure({})
    assert list(product.redriven("--account", "support").values()) == ["redriven"]


def test_what_no_longer_has_the_headers_of_an_event_is_still_bad(product: Product) -> None:
    product.harness.append_records(TOPIC, Record("key", b"{}", {"ce_source": "/oncehub/support"}))
    product.harness.load()
    assert list(product.redriven("--all", code=1).values()) == ["still_bad"]


def test_a_log_that_does_not_take_it_is_said_and_it_stays_open(product: Product) -> None:
    load_while_broken(product, sample(1))
    with writing_to(product.folder / "log.db"):
        result = product.run("redrive", "--all")
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith("error: ")
    assert product.harness.written(TOPIC) == 1
    assert list(product.redriven("--all").values()) == ["redriven"]


def test_the_end_of_a_reconciliation_goes_back_to_the_audit(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    report = Report(
        vendor="oncehub", account="support", since=at, until=at, started_at=at, finished_at=at
    ).event()
    with monkeypatch.context() as patch:
        patch.setattr(batch, "reported_row", refuse)
        product.harness.append_records("bookings.audit", report.to_record())
        product.harness.load()
    assert list(product.redriven("--all").values()) == ["redriven"]
    product.harness.load()
    assert product.harness.column("select id from reconciliations") == [report.id]
    assert list(product.redriven("--all").values()) == ["already_loaded"]


def refuse(*_: object) -> None:
    raise PayloadError("a bug of that day")


def redrive(folder: Path) -> Result:
    settings = {
        "log": f"sqlite:///{folder}/log.db",
        "warehouse": {"credentials": f"{folder}/warehouse.duckdb", "work_dir": f"{folder}/dlt"},
        "accounts": {"bookeo": {"vendor": "bookeo"}},
    }
    write_settings(folder, settings)
    return ingest(folder, "dead-letters", "redrive", "--all", "--json")


def test_records_that_could_not_be_read_are_repaired_and_the_next_reconciliation_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PayloadError("a bug of that day")

    with Pipeline(tmp_path, ["bookeo"]).open() as pipeline:
        pipeline.simulate(3)
        with monkeypatch.context() as patch:
            patch.setattr(Bookeo, "booking_of_record", refuse)
            assert pipeline.reconcile()["bookeo"].counts.unreadable == 3
        pipeline.settle()
        assert pipeline.harness.column("select count(*) from bookings") == [0]
        result = redrive(tmp_path)
        assert [entry["outcome"] for entry in result.json] == ["redriven"] * 3
        pipeline.settle()
        assert pipeline.differences() == []
        assert pipeline.harness.column("select distinct via from booking_events") == ["reconcile"]
        counts = pipeline.reconcile()["bookeo"].counts
        assert (counts.matched, counts.missed, counts.unreadable) == (3, 0, 0)
        assert {entry["outcome"] for entry in redrive(tmp_path).json} == {"already_loaded"}
