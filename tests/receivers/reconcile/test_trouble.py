"""What goes wrong at vendors and on the way: clear words, nothing half done, and the other accounts go on."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ingest.errors import ConfigurationError, LogUnavailable, VendorRefused, VendorUnavailable
from ingest.settings import Settings
from ingest.simulator.api import RateLimit
from ingest.simulator.world import Change, ChangeKind
from ingest.vendors import vendor_names
from ingest.waits import announcing
from receivers.reconcile.checkpoint import Checkpoint, Progress
from receivers.reconcile.report import Counts
from tests.receivers.reconcile.pipeline import SPAN, Pipeline
from tests.support.polling import PATIENCE

NOON = datetime(2026, 6, 10, 12, 0, tzinfo=UTC)

Fault = Callable[[str, Request], Response | None]


def broken(account: str, answer: Response, *, after: int = 0) -> Fault:
    """Answer this instead of the vendor, from so many requests on."""
    requests = 0

    def fault(account_name: str, _: Request) -> Response | None:
        nonlocal requests
        if account_name != account:
            return None
        requests += 1
        return answer if requests > after else None

    return fault


def test_a_wrong_key_is_told_with_account_request_and_remedy_and_the_other_accounts_go_on(
    tmp_path: Path,
) -> None:
    with Pipeline(
        tmp_path, ["calendly", "oncehub"], calendly={"api_token": "not-this-one"}
    ).open() as pipeline:
        pipeline.simulate(10)
        reports = pipeline.reconcile()
        refused = reports["calendly"].failure
        assert isinstance(refused, VendorRefused)
        assert "calendly account calendly: 401" in str(refused)
        assert "(request " in str(refused)
        assert "put a new one into the secrets file" in str(refused)
        assert "not-this-one" not in str(refused)
        assert reports["oncehub"].failure is None
        assert reports["oncehub"].counts.repaired == len(pipeline.world.meetings["oncehub"])
        rows = pipeline.harness.rows("select account, outcome, error from reconciliations order by account")
        assert [(row["account"], row["outcome"]) for row in rows] == [
            ("calendly", "failed"),
            ("oncehub", "complete"),
        ]
        assert rows[0]["error"] == str(refused)


@pytest.mark.parametrize("status", [402, 403])
def test_a_refused_scope_or_plan_says_what_to_look_at(tmp_path: Path, status: int) -> None:
    with Pipeline(tmp_path, ["calendly"]).open() as pipeline:
        body = {"title": "Permission Denied", "message": "Please upgrade"}
        pipeline.server.faults.append(
            broken("calendly", JSONResponse(body, status, {"X-Request-Id": "req-17"}))
        )
        failure = pipeline.reconcile()["calendly"].failure
        assert isinstance(failure, VendorRefused)
        assert f"{status} Permission Denied: Please upgrade (request req-17)" in str(failure)
        assert "scope" in str(failure) or "plan" in str(failure)


@pytest.mark.parametrize("vendor", vendor_names())
def test_a_vendor_that_goes_down_half_way_leaves_only_what_is_right_and_the_next_run_does_the_rest(
    tmp_path: Path, vendor: str
) -> None:
    with Pipeline(tmp_path, [vendor]).open() as pipeline:
        pipeline.simulate(130)
        fault = broken(vendor, Response("<html>upstream", 502), after=1)
        pipeline.server.faults.append(fault)
        failed = pipeline.reconcile()[vendor]
        assert isinstance(failed.failure, VendorUnavailable)
        assert f"{vendor} account {vendor}: 502" in str(failed.failure)
        assert all(difference.actual == "" for difference in pipeline.differences())
        pipeline.server.faults.remove(fault)
        assert pipeline.reconcile()[vendor].failure is None
        assert pipeline.differences() == []


@pytest.mark.parametrize("vendor", vendor_names())
def test_a_malformed_page_is_an_error_and_never_an_empty_list(tmp_path: Path, vendor: str) -> None:
    with Pipeline(tmp_path, [vendor]).open() as pipeline:
        pipeline.deliver(pipeline.simulate(3))
        for page in (
            b"",
            b"[]",
            b"{}",
            b'{"data": null, "collection": null}',
            b'{"data": [1], "collection": [1]}',
            b"<html>",
        ):
            answer = Response(page, 200, {"content-type": "application/json"})
            pipeline.server.faults[:] = [broken(vendor, answer, after=int(vendor == "calendly"))]
            report = pipeline.reconcile()[vendor]
            assert isinstance(report.failure, VendorUnavailable), page
            assert f"{vendor} account {vendor}: " in str(report.failure)
            assert report.counts.gone == 0
        assert pipeline.differences() == []


def test_a_record_nobody_can_read_is_set_aside_and_the_others_are_repaired(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["bookeo"]).open() as pipeline:
        pipeline.simulate(4)
        strange = {
            "data": [{"bookingNumber": "17", "startTime": "no time"}],
            "info": {"totalItems": 1, "totalPages": 1, "currentPage": 1},
        }
        fault = broken("bookeo", JSONResponse(strange))
        pipeline.server.faults.append(fault)
        report = pipeline.reconcile()["bookeo"]
        assert (report.failure, report.counts.unreadable, report.counts.seen) == (None, 1, 0)
        assert not report.settled
        pipeline.settle()
        (letter,) = pipeline.harness.rows("select * from dead_letters")
        assert (letter["reason"], letter["source"]) == ("unreadable_record", "/bookeo/bookeo")
        assert '"bookingNumber":"17"' in letter["data"]


def test_a_state_that_no_webhook_tells_of_is_loaded_and_is_nobodys_miss(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["oncehub"]).open() as pipeline:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        request = {
            "object": "booking",
            "id": "BKNG-1",
            "status": "requested",
            "creation_time": now,
            "last_updated_time": now,
        }
        pipeline.server.faults.append(
            broken("oncehub", JSONResponse({"object": "list", "data": [request], "has_more": False}))
        )
        counts = pipeline.reconcile()["oncehub"].counts
        assert (counts.seen, counts.untold, counts.missed, counts.repaired) == (1, 1, 0, 0)
        assert pipeline.harness.rows("select booking_id, status from bookings") == [
            {"booking_id": "BKNG-1", "status": "pending"}
        ]


def test_an_answer_that_nobody_thought_of_fails_its_account_alone(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["calendly", "bookeo"]).open() as pipeline:
        pipeline.simulate(4)
        pipeline.server.faults.append(broken("calendly", JSONResponse({"resource": {"uri": 7}})))
        reports = pipeline.reconcile()
        assert isinstance(reports["calendly"].failure, VendorUnavailable)
        assert "calendly account calendly" in str(reports["calendly"].failure)
        assert reports["bookeo"].failure is None


def test_a_run_that_was_stopped_goes_on_with_the_windows_that_are_left(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["bookeo"]).open() as pipeline:
        pipeline.simulate(5)
        start = datetime.now(UTC) - timedelta(days=100)
        fault = broken("bookeo", Response("", 503), after=2)
        pipeline.server.faults.append(fault)
        failed = pipeline.reconcile(start=start)["bookeo"]
        assert isinstance(failed.failure, VendorUnavailable)
        before = pipeline.server.requests["bookeo", 200]
        pipeline.server.faults.remove(fault)
        resumed = pipeline.reconcile(start=start)["bookeo"]
        assert resumed.failure is None
        assert pipeline.server.requests["bookeo", 200] - before == 2, "four windows, of which two were done"
        assert resumed.counts.seen == resumed.counts.repaired == 5
        assert resumed.started_at == failed.started_at
        before = pipeline.server.requests["bookeo", 200]
        assert pipeline.reconcile(start=start)["bookeo"].counts.matched == 5
        assert pipeline.server.requests["bookeo", 200] - before == 4, "a run that ended is not resumed"


def aged(changes: Sequence[Change], days: int) -> list[Change]:
    """Return the changes as if they had been so long ago."""
    at = datetime.now(UTC) - timedelta(days=days)
    return [
        replace(change, meeting=replace(change.meeting, created_at=at, changed_at=at)) for change in changes
    ]


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_a_run_that_was_stopped_finds_what_is_gone_from_the_windows_before(
    tmp_path: Path, after: int
) -> None:
    """Four windows, and a look at the one that is listed in none."""
    with Pipeline(tmp_path, ["bookeo"]).open() as pipeline:
        created = [change for change in pipeline.simulate(5) if change.kind is ChangeKind.CREATED]
        pipeline.deliver(aged(created[:1], 90) + created[1:])
        pipeline.world.delete("bookeo", created[0].meeting.number)
        start = datetime.now(UTC) - timedelta(days=100)
        fault = broken("bookeo", Response("", 503), after=after)
        pipeline.server.faults.append(fault)
        assert pipeline.reconcile(start=start)["bookeo"].failure
        pipeline.server.faults.remove(fault)
        resumed = pipeline.reconcile(start=start)["bookeo"]
        assert (resumed.failure, resumed.counts.gone) == (None, 1)
        assert pipeline.differences() == []


def test_a_run_that_was_killed_after_it_marked_what_is_gone_does_not_count_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Pipeline(tmp_path, ["bookeo"]).open() as pipeline:
        created = [change for change in pipeline.simulate(5) if change.kind is ChangeKind.CREATED]
        pipeline.deliver(aged(created[:1], 90) + created[1:])
        pipeline.world.delete("bookeo", created[0].meeting.number)
        start = datetime.now(UTC) - timedelta(days=100)
        with monkeypatch.context() as killed:
            killed.setattr("receivers.reconcile.run.AccountRun._record", lambda *_: None)
            pipeline.reconcile(start=start)
        assert pipeline.reconcile(start=start)["bookeo"].counts.gone == 1
        assert pipeline.harness.column("select sum(gone) from reconciliations") == [1]


def test_what_was_changed_too_lately_to_be_missed_is_looked_for_by_the_next_run(tmp_path: Path) -> None:
    lag = timedelta(days=5)
    with Pipeline(tmp_path, ["bookeo"], reconcile={"lag": "5d", "lookback": "1s"}).open() as pipeline:
        pipeline.simulate(1)
        first = pipeline.reconcile(since=timedelta(days=6))["bookeo"]
        assert (first.counts.seen, first.counts.missed) == (0, 0)
        covered = Checkpoint(tmp_path / "reconcile", "bookeo").covered()
        assert covered == first.started_at - lag
        tree = pipeline.tree()
        tree["reconcile"] |= {"lag": "0s"}
        pipeline.harness.settings = Settings.model_validate(tree)  # the time that would have to pass
        second = pipeline.reconcile(start=None)["bookeo"]
        assert (second.since, second.counts.repaired) == (covered, 1)


def test_after_a_first_run_that_failed_the_next_one_begins_where_that_one_began(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["bookeo"], reconcile={"lookback": "1h"}).open() as pipeline:
        pipeline.server.faults.append(broken("bookeo", Response(status_code=403)))
        first = pipeline.reconcile(start=None)["bookeo"]
        assert isinstance(first.failure, VendorRefused)
        pipeline.server.faults.clear()
        second = pipeline.reconcile(start=None)["bookeo"]
        assert (second.failure, second.since) == (None, first.since)
        third = pipeline.reconcile(start=None)["bookeo"]
        assert third.since > second.since


def test_a_run_without_a_beginning_goes_back_to_where_the_last_one_got(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["bookeo"], reconcile={"lookback": "1h"}).open() as pipeline:
        pipeline.simulate(5)
        covered = datetime.now(UTC) - timedelta(days=5)
        Checkpoint(tmp_path / "reconcile", "bookeo").cover(covered - timedelta(days=1), covered)
        first = pipeline.reconcile(start=None)["bookeo"]
        assert (first.since, first.counts.repaired) == (covered, 5)
        second = pipeline.reconcile(start=None)["bookeo"]
        assert second.started_at - second.since == timedelta(hours=1)
        assert second.counts.seen == 0


def knows_nothing(_: str, request: Request) -> Response | None:
    """Answer as OnceHub does with another account's key."""
    if request.url.path.endswith("/bookings"):
        return JSONResponse({"object": "list", "data": [], "has_more": False})
    return JSONResponse({"type": "invalid_request_error", "message": "No such booking", "param": "id"}, 404)


@pytest.mark.parametrize("bookings", [3, 45, 230])
def test_a_key_of_another_account_marks_nothing_as_gone(tmp_path: Path, bookings: int) -> None:
    with Pipeline(tmp_path, ["oncehub"]).open() as pipeline:
        pipeline.deliver(pipeline.simulate(bookings))
        assert pipeline.reconcile()["oncehub"].failure is None
        pipeline.server.faults.append(knows_nothing)
        report = pipeline.reconcile()["oncehub"]
        assert isinstance(report.failure, ConfigurationError)
        assert f"of {bookings} bookings here are not at the vendor" in str(report.failure)
        assert report.counts.requests <= 202
        assert pipeline.harness.column("select count(*) from bookings where gone_at is not null") == [0]


def test_what_moved_out_of_a_window_long_ago_is_found_in_a_later_one(tmp_path: Path) -> None:
    """All rows of an old window have changed since, and no webhook told: the key is the account's."""
    with Pipeline(tmp_path, ["oncehub"]).open() as pipeline:
        changes = pipeline.simulate(60)
        old = [
            replace(
                change, meeting=replace(change.meeting, changed_at=datetime.now(UTC) - timedelta(days=50))
            )
            for change in changes
        ]
        pipeline.deliver([change for change in old if change.kind is ChangeKind.CREATED])
        report = pipeline.reconcile(start=datetime.now(UTC) - timedelta(days=60))["oncehub"]
        assert report.failure is None
        assert report.counts.seen == pipeline.count()
        assert pipeline.differences() == []


def test_webhooks_that_are_not_loaded_yet_are_not_missed(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path, ["bookeo"])
    with pipeline.open():
        pass
    with pipeline.server.serving(), pipeline.opened():
        pipeline.append(pipeline.simulate(4))
        with pipeline.harness.running():
            report = pipeline.reconcile()["bookeo"]
        assert (report.counts.missed, report.counts.matched) == (0, 4)


def test_what_a_killed_run_had_found_is_recorded_by_the_next(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["bookeo"]).open() as pipeline:
        killed = Progress(NOON, None, NOON, NOON, datetime.now(UTC), Counts(seen=9, missed=4, repaired=4))
        Checkpoint(tmp_path / "reconcile", "bookeo").write(killed)
        pipeline.simulate(1)
        pipeline.reconcile()
        rows = pipeline.harness.rows(
            "select outcome, missed, repaired, error from reconciliations order by missed"
        )
        assert [(row["outcome"], row["missed"], row["repaired"]) for row in rows] == [
            ("complete", 1, 1),
            ("failed", 4, 4),
        ]
        assert "stopped" in rows[1]["error"]


def test_a_booking_marked_as_gone_that_is_back_is_unmarked(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["bookeo"]).open() as pipeline:
        pipeline.deliver(pipeline.simulate(3))
        number, meeting = next(iter(pipeline.world.meetings["bookeo"].items()))
        pipeline.world.delete("bookeo", number)
        assert pipeline.reconcile()["bookeo"].counts.gone == 1
        pipeline.world.meetings["bookeo"][number] = meeting
        assert pipeline.reconcile()["bookeo"].counts.repaired == 1
        assert pipeline.differences() == []


def test_a_row_that_is_younger_than_the_vendors_lag_is_not_doubted(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["bookeo"], reconcile={"lag": "1h"}).open() as pipeline:
        pipeline.deliver(pipeline.simulate(2))
        number, _ = next(iter(pipeline.world.meetings["bookeo"].items()))
        pipeline.world.delete("bookeo", number)
        assert pipeline.reconcile()["bookeo"].counts.gone == 0


def test_one_account_is_reconciled_by_one_process_at_a_time(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["bookeo", "oncehub"]).open() as pipeline:
        pipeline.simulate(4)
        with Checkpoint(tmp_path / "reconcile", "bookeo").lock():
            reports = pipeline.reconcile()
        assert isinstance(reports["bookeo"].failure, LogUnavailable)
        assert "another process is reconciling account bookeo" in str(reports["bookeo"].failure)
        assert reports["oncehub"].failure is None


def test_a_run_that_somebody_asked_for_waits_for_one_that_is_under_way(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["bookeo"]).open() as pipeline:
        pipeline.simulate(4)
        locked, announced = threading.Event(), threading.Event()
        lines: list[str] = []

        def hold() -> None:
            with Checkpoint(tmp_path / "reconcile", "bookeo").lock():
                locked.set()
                announced.wait(PATIENCE)

        def note(line: str) -> None:
            lines.append(line)
            announced.set()

        holder = threading.Thread(target=hold)
        holder.start()
        assert locked.wait(PATIENCE)
        with announcing(note):
            reports = pipeline.reconcile(patience=PATIENCE)
        holder.join()
        assert "another process is reconciling account bookeo" in lines[0]
        assert reports["bookeo"].failure is None
        assert reports["bookeo"].counts.repaired == 4


def test_limits_and_failures_in_passing_cost_requests_and_nothing_else(tmp_path: Path) -> None:
    limits = {name: RateLimit(5, 0.4) for name in vendor_names()}
    with Pipeline(tmp_path, vendor_names(), limits).open() as pipeline:
        pipeline.simulate(60)
        reports = pipeline.reconcile(since=SPAN + timedelta(days=1))
        assert [report.failure for report in reports.values()] == [None] * 4
        assert sum(count for (_, status), count in pipeline.server.requests.items() if status == 429) > 0
        assert pipeline.differences() == []
