"""Tests of statements: rows that a later one replaces, and verdicts that need their evidence."""

import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from consumers.batch import Chunk, Item, plan_load, read_batch
from consumers.statements import valid_statements
from consumers.warehouse import tables
from ingest.event import JUDGED, Event, Via, build_statement
from ingest.log import Partition, Record, StoredRecord
from ingest.vendors import BookingMapper
from ingest.warehouse.completeness import CompletenessTable, HourVerdict, Verdict
from tests.consumers.harness import ConsumerHarness
from tests.consumers.samples import START, TOPICS, moment, sample

VERDICT = HourVerdict("oncehub", "support", START, Verdict.COMPLETE, START, digest="00", evidence_load="1")
SOURCE = "/oncehub/support"


def statement(stated_at: datetime, **columns: Any) -> Event:
    return build_statement(JUDGED, SOURCE, VERDICT.columns() | columns, stated_at)


def items(*events: Event) -> list[Item]:
    records = [StoredRecord(event.to_record(), Partition(TOPICS.audit), 0) for event in events]
    batch = read_batch(records, TOPICS, BookingMapper({}), START)
    assert not batch.dead
    return batch.items


def test_the_latest_of_several_statements_in_a_batch_is_the_row() -> None:
    events = [statement(moment(minute), listed=minute) for minute in (1, 3, 2)]
    plan = plan_load(Chunk(items(*events)), {}, START)
    assert [row["listed"] for row in plan.rows["completeness"]] == [3]


@pytest.mark.parametrize(("minutes", "expected"), [(-1, []), (0, []), (1, ["oncehub/support/2026-05-01T09"])])
def test_a_statement_replaces_only_an_earlier_one(minutes: int, expected: list[str]) -> None:
    stored = {("completeness", VERDICT.id): START}
    valid = valid_statements(items(statement(START + timedelta(minutes=minutes))), stored, {"1"})
    assert [item.row["id"] for item in valid] == expected


@pytest.mark.parametrize("verdict", ["complete", "unprovable"])
@pytest.mark.parametrize("load_id", ["1", None])
def test_a_proof_does_not_hold_in_a_warehouse_without_its_evidence(verdict: str, load_id: str | None) -> None:
    event = statement(START, verdict=verdict, evidence_load=load_id)
    [item] = valid_statements(items(event), {}, {"2"})
    assert (item.row["verdict"], item.row["proven_at"], item.row["digest"]) == ("open", None, None)
    if load_id:
        [item] = valid_statements(items(event), {}, {"2", load_id})
        assert item.row["verdict"] == verdict


def test_what_is_not_complete_needs_no_evidence() -> None:
    [item] = valid_statements(items(statement(START, verdict="incomplete", evidence_load=None)), {}, ())
    assert item.row["verdict"] == "incomplete"


def test_replayed_statements_are_left_out() -> None:
    record = statement(START).to_record()
    replayed = Record(record.key, record.value, {**record.headers, "ce_via": Via.REPLAY})
    batch = read_batch([StoredRecord(replayed, Partition(TOPICS.audit), 0)], TOPICS, BookingMapper({}), START)
    assert (batch.items, batch.dead) == ([], [])


@pytest.mark.parametrize("ahead", [-7200, 7200])
def test_loads_are_in_order_although_the_clock_is_set(
    harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    loads = []
    for number, offset in enumerate([0, ahead, 0]):
        monkeypatch.setattr(tables, "create_load_id", lambda offset=offset: f"{time.time() + offset:.7f}")
        harness.load(sample(number, at=number))
        loads.append(CompletenessTable(harness.settings).newest_load())
    assert loads == sorted(set(loads), key=str)
    assert harness.column(f"select count(*) from _dlt_loads where load_id >= '{loads[0]}'") == [3]
