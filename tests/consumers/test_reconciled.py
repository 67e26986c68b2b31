"""Tests of what reconciliation appends to the log: repairs, gone bookings, and the ends of runs."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest

from consumers.batch import plan_load, read_batch
from consumers.rows import SCHEMAS
from ingest.event import RECONCILED, Event, Via
from ingest.log import Partition, StoredRecord
from ingest.settings import Settings
from ingest.vendors import OBSERVED, AnyAccount, BookingMapper
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import START, TOPICS, moment, sample

RUN: dict[str, Any] = {
    "id": "R1", "vendor": "oncehub", "account": "support", "since": "2026-04-29T09:00:00Z", "until": None,
    "started_at": "2026-05-01T09:00:00Z",
    "finished_at": "2026-05-01T09:00:02.5Z", "duration_seconds": 2.5, "seen": 120, "matched": 117,
    "missed": 2, "repaired": 3, "untold": 0, "newer_here": 1,
    "gone": 1, "unreadable": 0, "requests": 4, "least_requests": 2, "outcome": "complete", "error": None,
}  # fmt: skip


def end_of_run(document: Any, kind: str = RECONCILED) -> Event:
    """Return the event that a run appends at its end."""
    data = document if isinstance(document, bytes) else orjson.dumps(document)
    return Event(
        id="A1",
        source="/oncehub/support",
        type=kind,
        subject="R1",
        time=START,
        received_at=START,
        data=data,
        via=Via.RECONCILE,
    )


def observed_event(number: int, at: float, seen_at: float, supersedes: str = "", **data: Any) -> Event:
    """Return a booking as REST has it: last changed at one second, read at another."""
    record = orjson.dumps(orjson.loads(sample(number, at=at, **data).data)["data"])
    there = replace(sample(number), type=OBSERVED, data=record, via=Via.RECONCILE)
    return replace(there, time=moment(seen_at), received_at=moment(seen_at), supersedes=supersedes)


def version(seconds: float) -> str:
    return f"{moment(seconds):%Y-%m-%dT%H:%M:%S}.000000Z"


def oncehub_account() -> AnyAccount:
    tree = {"accounts": {"support": {"vendor": "oncehub", "webhook_secrets": ["any"]}}}
    return Settings.model_validate(tree).build_accounts()["oncehub", "support"]


def state(harness: ConsumerHarness) -> dict[str, Any]:
    rows = harness.rows("select * from bookings")
    assert len(rows) == 1
    return rows[0]


def test_a_superseding_state_replaces_the_one_it_names_though_its_own_version_is_older(
    harness: ConsumerHarness,
) -> None:
    harness.load(sample(1, at=50))
    harness.load(observed_event(2, at=20, seen_at=60))
    assert state(harness)["last_event_id"] == "E1"
    harness.load(observed_event(3, at=20, seen_at=61, supersedes=version(50)))
    assert (state(harness)["last_event_id"], state(harness)["last_via"]) == ("E3", "reconcile")
    assert state(harness)["version"].startswith(version(50))


def test_a_webhook_that_is_newer_than_the_state_that_was_replaced_wins_before_and_after(
    harness: ConsumerHarness,
) -> None:
    harness.load(
        sample(1, at=50), sample(2, at=55), observed_event(3, at=20, seen_at=60, supersedes=version(50))
    )
    assert state(harness)["last_event_id"] == "E2"
    harness.load(observed_event(4, at=20, seen_at=61, supersedes=version(55)))
    assert state(harness)["last_event_id"] == "E4"
    harness.load(sample(5, at=56))
    assert state(harness)["last_event_id"] == "E5"


def test_a_state_read_earlier_than_the_one_that_superseded_is_stale(harness: ConsumerHarness) -> None:
    harness.load(sample(1, at=50), observed_event(3, at=20, seen_at=60, supersedes=version(50)))
    harness.load(observed_event(2, at=20, seen_at=59, supersedes=version(50)))
    assert state(harness)["last_event_id"] == "E3"


def test_a_gone_booking_keeps_what_it_was_until_a_webhook_tells_of_it_again(
    either_harness: ConsumerHarness,
) -> None:
    either_harness.load(
        sample(
            1,
            at=50,
            starting_time="2026-05-09T10:00:00Z",
            duration_minutes=30,
            payment_information={"amount_charged": 1250},
        )
    )
    before = state(either_harness)
    assert before["gone_at"] is None
    booking = oncehub_account().booking(
        sample(
            1,
            at=50,
            starting_time="2026-05-09T10:00:00Z",
            duration_minutes=30,
            payment_information={"amount_charged": 1250},
        )
    )
    assert booking
    either_harness.load(oncehub_account().gone(booking, moment(70)))
    after = state(either_harness)
    assert after["gone_at"] == moment(70)
    its_own = {"gone_at", "version", "last_event_id", "last_via", "loaded_at"}
    assert {name: after[name] for name in after.keys() - its_own} == {
        name: before[name] for name in before.keys() - its_own
    }
    either_harness.load(sample(2, at=80))
    assert (state(either_harness)["gone_at"], state(either_harness)["last_event_id"]) == (None, "E2")


def test_the_end_of_a_run_is_a_row_once(either_harness: ConsumerHarness) -> None:
    record = end_of_run(RUN).to_record()
    either_harness.append_records(TOPICS.audit, record, record)
    either_harness.load()
    either_harness.append_records(TOPICS.audit, record)
    either_harness.load(sample(1))
    rows = either_harness.rows("select * from reconciliations")
    assert len(rows) == 1
    assert rows[0].pop("loaded_at") > START
    rows[0].pop("_lookup_key", None)
    rows[0].pop("_lookup_run", None)
    instants = {"since": START - timedelta(days=2), "started_at": START, "finished_at": moment(2.5)}
    assert rows[0] == RUN | instants
    assert either_harness.column("select count(*) from booking_events") == [1]
    assert either_harness.written(TOPICS.dead_letters) == 0


def read(event: Event) -> Any:
    return read_batch(
        [StoredRecord(event.to_record(), Partition(TOPICS.audit), 0)], TOPICS, BookingMapper({}), START
    )


def test_a_run_that_failed_tells_why_and_one_with_an_end_until_when() -> None:
    document = RUN | {
        "until": "2026-06-01T00:00:00+02:00",
        "outcome": "failed",
        "error": "no answer",
        "duration_seconds": 3,
    }
    row = plan_load(read(end_of_run(document)).to_load(), {}, START).rows["reconciliations"][0]
    assert row.keys() == set(SCHEMAS["reconciliations"].names)
    assert (row["error"], row["until"].isoformat(), row["loaded_at"]) == (
        "no answer",
        "2026-05-31T22:00:00+00:00",
        START,
    )


def test_other_types_on_the_audit_topic_are_left_out_and_no_dead_letters() -> None:
    batch = read(end_of_run(b"{", "ingest.receiver.started"))
    assert (batch.items, batch.dead, batch.readable) == ([], [], []), "nor do they end a run of bad records"


@pytest.mark.parametrize(
    "document",
    [b"{", [], RUN | {"seen": "120"}, RUN | {"seen": True}, RUN | {"seen": None},
     RUN | {"since": "yesterday"}, RUN | {"since": 1},
     RUN | {"outcome": None}, RUN | {"error": 1},
     {name: value for name, value in RUN.items() if name != "id"}],
)  # fmt: skip
def test_an_end_that_cannot_be_read_is_set_aside(document: Any) -> None:
    batch = read(end_of_run(document))
    assert [dead.reason for dead in batch.dead] == ["unreadable_record"]
    assert batch.items == []


def test_a_warehouse_without_the_column_of_gone_bookings_gets_it_and_keeps_its_rows(
    either_tree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        older = SCHEMAS["bookings"]
        patch.setitem(SCHEMAS, "bookings", older.remove(older.get_field_index("gone_at")))
        with open_consumer(either_tree) as harness:
            harness.load(sample(1))
            assert "gone_at" not in state(harness)
    with open_consumer(either_tree) as harness:
        harness.warehouse.prepare()
        assert (state(harness)["gone_at"], state(harness)["last_event_id"]) == (None, "E1")
        harness.load(sample(2, at=5))
        assert state(harness)["last_event_id"] == "E2"
