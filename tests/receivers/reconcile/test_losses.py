"""A vendor that says it gave up a delivery has that account reconciled at once."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import Response

from ingest.errors import LogUnavailable
from ingest.event import LOST, Event
from ingest.log import Producer, Record
from ingest.simulator.account import differences
from ingest.vendors import AnyAccount, Delivery, VerifiedDelivery
from ingest.vendors.delivery import Headers
from receivers.losses import report_loss
from receivers.reconcile.report import Report
from receivers.schedule import Schedule
from tests.receivers.reconcile.pipeline import Pipeline
from tests.receivers.reconcile.test_periodic import rows, up
from tests.support.polling import wait_for
from tests.support.ports import free_port

LOST_HEADER = {"X-Bookeo-PreviousMessageLost": "true"}


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    pipeline = Pipeline(tmp_path, ["bookeo", "oncehub"], reconcile={"every": "1h", "jitter": "0s"})
    with pipeline.server.serving(), pipeline.opened():
        yield pipeline


def delivery(pipeline: Pipeline, **changes: str) -> tuple[AnyAccount, VerifiedDelivery]:
    """Return Bookeo's next delivery, with these headers too."""
    (change, *_) = [change for change in pipeline.simulate(8) if change.account == "bookeo"]
    account, dialect, now = (
        pipeline.harness.settings.build_accounts()["bookeo", "bookeo"],
        pipeline.accounts["bookeo"],
        datetime.now(UTC),
    )
    webhook = dialect.webhook(change)
    headers = Headers.of({**dialect.headers(webhook, now), **changes}.items())
    return account, account.verify(Delivery(webhook.query, headers, webhook.body, now), now)


def report(pipeline: Pipeline) -> datetime:
    """Report a loss by a delivery, and return when that came."""
    account, verified = delivery(pipeline, **LOST_HEADER)
    before = len(notes(pipeline))
    report_loss(account, verified, pipeline.harness.producer, pipeline.harness.settings.audit_topic)
    wait_for(lambda: len(notes(pipeline)) > before, "the note is in the log")
    return verified.received_at


def notes(pipeline: Pipeline) -> list[Event]:
    reader = pipeline.harness.settings.build_log().reader(None, [pipeline.harness.settings.audit_topic])
    try:
        events = [Event.from_record(stored.record) for stored in reader.records()]
    finally:
        reader.close()
    return [event for event in events if event.type == LOST]


def test_a_delivery_that_tells_of_a_loss_leaves_one_note_and_any_other_none(pipeline: Pipeline) -> None:
    for headers in ({}, {"X-Bookeo-PreviousMessageLost": "false"}):
        account, verified = delivery(pipeline, **headers)
        report_loss(account, verified, pipeline.harness.producer, pipeline.harness.settings.audit_topic)
    reported_at = report(pipeline)
    (note,) = notes(pipeline)
    assert (note.source, note.time) == ("/bookeo/bookeo", reported_at)


class Broken(Producer):
    """A log that is away, or a producer with a defect."""

    def __init__(self, error: Exception, *, late: bool) -> None:
        self.error, self.late = error, late

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":  # noqa: ARG002 - it takes none
        if not self.late:
            raise self.error
        future: Future[None] = Future()
        future.set_exception(self.error)
        return future

    def close(self) -> None:
        pass


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [LogUnavailable("away"), RuntimeError("a defect")])
def test_a_note_that_cannot_be_written_is_no_reason_to_fail(
    pipeline: Pipeline, error: Exception, late: bool
) -> None:
    account, verified = delivery(pipeline, **LOST_HEADER)
    report_loss(account, verified, Broken(error, late=late), pipeline.harness.settings.audit_topic)


def test_the_schedule_compares_the_account_that_lost_something_and_no_other(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    reconciler = pipeline.reconciler()

    def run(accounts: Sequence[AnyAccount], *_: object) -> list[Report]:
        ran.extend(account.name for account in accounts)
        return []

    monkeypatch.setattr(reconciler, "run", run)
    monkeypatch.setattr("receivers.schedule.Schedule._compare", lambda _: None)
    monkeypatch.setattr("receivers.schedule.Schedule._check_subscriptions", lambda _: None)
    monkeypatch.setattr("receivers.completeness.gaps.CLOCK_MARGIN", timedelta(0))
    report(pipeline)
    stop = threading.Event()
    schedule = Schedule(pipeline.harness.settings, lambda: pipeline.harness.settings, [], reconciler)
    thread = threading.Thread(target=schedule.run, args=(stop,), daemon=True)
    thread.start()
    try:
        wait_for(lambda: ran == ["bookeo"], "it runs")
    finally:
        stop.set()
        thread.join()


def test_from_the_header_at_the_receiver_to_the_repaired_row(tmp_path: Path) -> None:
    port = free_port()
    times = {"every": "1h", "jitter": "0s", "lookback": "5d", "patience": "1s"}
    pipeline, is_down = Pipeline(tmp_path, ["bookeo"], reconcile=times), True
    # What the first comparison could prove, nobody would compare again.
    pipeline.server.faults.append(lambda *_: Response("", 503) if is_down else None)
    with pipeline.server.serving():
        tree: dict[str, Any] = pipeline.tree()
        with up(tmp_path, tree, port=port):
            wait_for(
                lambda: len(rows(tree, "select * from reconciliations")) == 1,
                "the first comparison has failed",
            )
            is_down = False
            changes = pipeline.simulate(5)
            webhook = pipeline.accounts["bookeo"].webhook(changes[-1])
            headers = {**pipeline.accounts["bookeo"].headers(webhook, datetime.now(UTC)), **LOST_HEADER}
            url = f"http://127.0.0.1:{port}/webhooks/bookeo/bookeo?{webhook.query}"
            assert httpx.post(url, content=webhook.body, headers=headers).status_code == 202
            wait_for(
                lambda: (
                    differences(pipeline.world, pipeline.accounts, rows(tree, "select * from bookings")) == []
                ),
                "all is repaired",
            )
