"""The report of a run is in the log once, even if the run is stopped or killed, or the log is away."""

import errno
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from ingest.errors import LogUnavailable
from ingest.log import Producer, Record
from ingest.warehouse.bookings import BookingsTable
from receivers.reconcile.checkpoint import Checkpoint
from receivers.reconcile.run import Reconciler, choose_accounts
from tests.receivers.reconcile.pipeline import Pipeline
from tests.receivers.reconcile.test_trouble import broken
from tests.support.polling import PATIENCE, wait_for

ROWS = "select account, outcome, missed, repaired from reconciliations order by finished_at"


class Troubled:
    """A log that fails for one topic: before it has the records, or after, when only the answer is lost."""

    def __init__(self, log: Producer, topic: str, *, appends: bool) -> None:
        self._log = log
        self._topic = topic
        self._appends = appends

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        if topic != self._topic:
            return self._log.append(topic, records)
        if self._appends:
            self._log.append(topic, records).result(PATIENCE)
        failed: Future[None] = Future()
        failed.set_exception(LogUnavailable("the brokers are away"))
        return failed

    def close(self) -> None:
        self._log.close()


def reconciler(pipeline: Pipeline, producer: Producer, stop: threading.Event | None = None) -> Reconciler:
    return Reconciler(
        pipeline.harness.settings,
        BookingsTable(pipeline.harness.settings),
        producer,
        lambda *_: None,
        stop or threading.Event(),
    )


def troubled(pipeline: Pipeline, *, appends: bool = False) -> Reconciler:
    return reconciler(
        pipeline, Troubled(pipeline.harness.producer, pipeline.harness.settings.audit_topic, appends=appends)
    )


def last_week() -> datetime:
    return datetime.now(UTC) - timedelta(days=7)


def told(pipeline: Pipeline) -> list[tuple[object, ...]]:
    pipeline.settle()
    return [tuple(row.values()) for row in pipeline.harness.rows(ROWS)]


def test_what_an_account_found_that_ended_is_told_though_the_run_is_stopped_in_another(
    tmp_path: Path,
) -> None:
    blocked = threading.Event()

    def hold(account: str, _: Request) -> Response | None:
        return Response("", 503) if account == "oncehub" and not blocked.is_set() else None

    with Pipeline(tmp_path, ["bookeo", "oncehub"], reconcile={"patience": "10m"}).open() as pipeline:
        pipeline.simulate(10)
        pipeline.server.faults.append(hold)
        stop, since = threading.Event(), last_week()
        reports: list[object] = []
        accounts = choose_accounts(pipeline.harness.settings, [])
        running = threading.Thread(
            target=lambda: reports.extend(
                reconciler(pipeline, pipeline.harness.producer, stop).run(accounts, since)
            )
        )
        running.start()
        missed = len(pipeline.world.meetings["bookeo"])
        try:
            wait_for(
                lambda: pipeline.harness.rows("select 1 from completeness where account = 'bookeo'"),
                "the hours of the account that ended have verdicts, while the other one runs",
            )
        finally:
            stop.set()
            running.join(PATIENCE)
            blocked.set()
            wait_for(
                lambda: not any(thread.name.startswith("reconcile") for thread in threading.enumerate()),
                "what was left behind has ended",
            )
        assert [getattr(report, "account", "") for report in reports] == ["bookeo"]
        assert told(pipeline)[0] == ("bookeo", "complete", missed, missed)


def test_a_report_that_the_log_does_not_take_is_kept_and_said_so_and_told_by_the_next_run(
    tmp_path: Path,
) -> None:
    with Pipeline(tmp_path, ["bookeo"], reconcile={"lookback": "7d"}).open() as pipeline:
        pipeline.simulate(4)
        accounts = choose_accounts(pipeline.harness.settings, [])
        (unrecorded,) = troubled(pipeline).run(accounts)
        assert (unrecorded.failure, unrecorded.counts.missed, str(unrecorded.unrecorded)) == (
            None,
            4,
            "the brokers are away",
        )
        covered = Checkpoint(tmp_path / "reconcile", "bookeo")
        assert covered.covered() is None
        (still,) = troubled(pipeline).run(accounts)
        assert isinstance(still.failure, LogUnavailable)
        assert told(pipeline) == []
        (report,) = reconciler(pipeline, pipeline.harness.producer).run(accounts)
        assert (report.unrecorded, report.failure) == (None, None)
        assert told(pipeline) == [("bookeo", "complete", 4, 4), ("bookeo", "complete", 0, 0)]
        assert pipeline.harness.column("select id from reconciliations where missed > 0") == [unrecorded.id]
        assert covered.covered() == report.started_at
        assert list((tmp_path / "reconcile").glob("*.reconcile")) == []


def test_a_run_that_is_killed_after_its_report_is_in_the_log_is_told_once(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["bookeo"]).open() as pipeline:
        pipeline.simulate(4)
        accounts, since = choose_accounts(pipeline.harness.settings, []), last_week()
        troubled(pipeline, appends=True).run(accounts, since)
        assert told(pipeline) == [("bookeo", "complete", 4, 4)]
        (report,) = reconciler(pipeline, pipeline.harness.producer).run(accounts, since)
        assert told(pipeline) == [("bookeo", "complete", 4, 4), ("bookeo", "complete", 0, 0)]
        assert report.counts.matched == 4, "it is another run"
        assert list((tmp_path / "reconcile").glob("*.reconcile")) == []


def test_a_failure_that_the_log_does_not_take_is_told_and_then_gone_on_from(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["bookeo"]).open() as pipeline:
        pipeline.simulate(4)
        accounts = choose_accounts(pipeline.harness.settings, [])
        since = datetime.now(UTC) - timedelta(days=100)
        fault = broken("bookeo", Response("", 503), after=2)
        pipeline.server.faults.append(fault)
        (failed,) = troubled(pipeline).run(accounts, since)
        assert failed.failure
        assert failed.unrecorded
        pipeline.server.faults.remove(fault)
        (resumed,) = reconciler(pipeline, pipeline.harness.producer).run(accounts, since)
        assert resumed.started_at == failed.started_at
        assert told(pipeline) == [("bookeo", "failed", 0, 0), ("bookeo", "complete", 4, 4)]
        assert pipeline.harness.column("select error from reconciliations where outcome = 'failed'") == [
            str(failed.failure)
        ]


def test_a_disk_without_room_for_notes_is_named_and_told_and_no_answer_of_the_vendors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Pipeline(tmp_path, ["bookeo"]).open() as pipeline:
        monkeypatch.setattr("receivers.reconcile.checkpoint.replace_private", full)
        report = pipeline.reconcile()["bookeo"]
        assert isinstance(report.failure, LogUnavailable)
        assert f"reconcile.state_dir {tmp_path}/reconcile cannot be used: No space left on device" in str(
            report.failure
        )
        assert told(pipeline) == [("bookeo", "failed", 0, 0)]
