"""From a note in the log to a repaired warehouse and a closed gap, with the vendors' simulated REST sides."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest.event import Cause, build_loss_note
from ingest.vendors import AnyAccount
from receivers.completeness import closing
from receivers.completeness.closing import GapCloser
from receivers.reconcile.report import Report
from tests.receivers.reconcile.pipeline import SPAN, Pipeline


@pytest.fixture(params=["appointedd", "bookeo", "calendly", "oncehub"])
def pipeline(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pipeline]:
    with Pipeline(tmp_path, [request.param]).open() as pipeline:
        yield pipeline


def open_closer(pipeline: Pipeline) -> GapCloser:
    reconciler = pipeline.reconciler()

    def run(account: AnyAccount, since: datetime, until: datetime | None) -> Report | None:
        return next(iter(reconciler.run([account], since, until)), None)

    return GapCloser(pipeline.harness.settings, pipeline.harness.producer, run)


def gaps(pipeline: Pipeline) -> list[dict[str, Any]]:
    pipeline.settle()
    return pipeline.harness.rows("select * from gaps")


def test_what_was_lost_is_repaired_and_the_gap_closed_also_by_a_process_that_starts_meanwhile(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "_LOOK_SECONDS", 0.0)
    changes = pipeline.simulate(6)
    pipeline.deliver(changes[::2])
    missing = len(pipeline.differences())
    assert missing
    settings, now = pipeline.harness.settings, datetime.now(UTC)
    (account,) = settings.build_accounts().values()
    lost_at = now - timedelta(hours=2)
    note = build_loss_note(account.source, lost_at, cause=Cause.LOG_DELETED, since=now - SPAN)
    pipeline.harness.append_records(settings.audit_topic, note.to_record())

    closer = open_closer(pipeline)
    closer.find([account])
    (found,) = gaps(pipeline)
    assert (found["cause"], found["closed_at"], found["until_at"]) == ("log_deleted", None, lost_at)
    closer = open_closer(pipeline)  # the first process was killed
    closer.step([account])
    assert pipeline.differences() == []
    closer.step([account])
    (closed,) = gaps(pipeline)
    assert closed["id"] == found["id"]
    assert closed["closed_at"]
    assert closed["waits_for"] is None
    assert closed["missed"] == closed["repaired"] == missing
    closer = open_closer(pipeline)
    closer.step([account])
    assert closer.book.open() == [], "nor is it opened again"
    assert len(pipeline.harness.rows("select * from reconciliations")) == 1
