"""Readiness is found out by doing, seldom, and nobody waits long for the answer; old work is reported."""

import asyncio
import threading
import time
from datetime import timedelta

import httpx
import pytest
from structlog.testing import capture_logs

from ingest.admin import build_admin
from ingest.errors import LogUnavailable, WarehouseUnavailable
from ingest.readiness import Readiness, State, UndoneWork, failed, ok, readiness_body, warning
from tests.support.polling import wait_for


class Probe:
    """Counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None

    def __call__(self) -> None:
        self.asked += 1
        if self.error:
            raise self.error


def test_an_answer_is_used_again_while_it_is_fresh() -> None:
    probe = Probe()
    readiness = Readiness({"log": probe}, max_age=3600)
    assert [readiness.findings() for _ in range(5)] == [[ok("log", "ready")]] * 5
    assert probe.asked == 1


def test_an_answer_that_is_no_longer_fresh_is_had_anew() -> None:
    probe = Probe()
    readiness = Readiness({"log": probe}, max_age=0)
    assert not readiness.findings()[0].failed
    probe.error = LogUnavailable("the log is away")
    assert readiness.findings()[0].detail == "the log is away"
    probe.error = None
    assert not readiness.findings()[0].failed


def test_every_probe_has_its_say() -> None:
    log, warehouse = Probe(), Probe()
    log.error, warehouse.error = LogUnavailable("no log"), WarehouseUnavailable("no warehouse")
    findings = Readiness(
        {"log": log, "warehouse": warehouse, "disk": lambda: [warning("disk", "little room")]}
    ).findings()
    assert [(finding.check, finding.state) for finding in findings] == [
        ("log", State.FAILED),
        ("warehouse", State.FAILED),
        ("disk", State.WARNING),
    ]


def test_an_error_nobody_thought_of_is_no_readiness_and_its_text_is_not_shown() -> None:
    probe = Probe()
    probe.error = ValueError("it may quote a secret")
    [finding] = Readiness({"log": probe}).findings()
    assert (finding.state, finding.detail) == (State.FAILED, "ValueError")


def test_one_that_hangs_is_named_asked_once_and_believed_when_it_comes_back() -> None:
    go_on, calls = threading.Event(), []

    def hang() -> None:
        calls.append(1)
        go_on.wait()

    readiness = Readiness({"quick": Probe(), "warehouse": hang}, max_age=3600, timeout=0.01)
    for _ in range(3):
        assert readiness.findings() == [failed("warehouse", "no answer within 0 s")]
    assert calls == [1]
    go_on.set()
    readiness._done.wait()
    assert not any(finding.failed for finding in readiness.findings())


def test_the_body_has_the_reasons_and_what_to_do() -> None:
    body = readiness_body(
        [ok("log", "fine"), failed("spool", "full", "empty it"), warning("disk", "little room")]
    )
    assert (body["ready"], body["reasons"]) == (False, ["spool: full; empty it"])
    assert [(finding["check"], finding["state"]) for finding in body["checks"]] == [
        ("log", "ok"),
        ("spool", "failed"),
        ("disk", "warning"),
    ]
    assert readiness_body([warning("disk", "little room")])["ready"] is True


def test_it_is_answered_with_the_status_that_orchestrators_look_at() -> None:
    findings = [ok("log", "fine")]

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(build_admin(lambda: findings, None)), base_url="http://admin"
        ) as client:
            return await client.get("/readyz")

    well = asyncio.run(ask())
    assert (well.status_code, well.json()["ready"]) == (200, True)
    findings.append(failed("warehouse", "away"))
    ill = asyncio.run(ask())
    assert ill.status_code == 503
    assert ill.json()["reasons"] == ["warehouse: away"]


def begun_ago(work: UndoneWork, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin work, as it was so many seconds ago."""
    work.begin("3 records are being loaded")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + seconds)


def test_without_work_nothing_is_undone() -> None:
    work = UndoneWork("consumer", timedelta(seconds=30))
    assert (work.seconds, work.probe()[0].state) == (0.0, State.OK)


def test_work_within_the_limit_is_told_and_beyond_it_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    work = UndoneWork("consumer", timedelta(seconds=30))
    begun_ago(work, 29, monkeypatch)
    assert (work.probe()[0].state, work.probe()[0].detail) == (
        State.OK,
        "consumer: 3 records are being loaded, for 29 s now",
    )
    begun_ago(work, 40, monkeypatch)
    assert work.probe()[0].state is State.FAILED
    assert "consumer.undone_limit is 30 s" in work.probe()[0].remedy


def test_work_that_is_tried_again_is_as_old_as_its_first_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    work = UndoneWork("consumer", timedelta(seconds=30))
    begun_ago(work, 50, monkeypatch)
    work.begin("2 records are being loaded")
    assert work.seconds == pytest.approx(50, abs=5)
    work.end()
    work.begin("another record is being loaded")
    assert work.seconds < 50


def test_work_that_takes_long_is_logged_with_its_cause_while_it_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ingest.readiness._QUIET_SECONDS", 0.05)
    monkeypatch.setattr("ingest.readiness._WATCH_EVERY_SECONDS", 0.01)
    work = UndoneWork("consumer", timedelta(seconds=30), lambda: "a lock of somebody's session")
    with capture_logs() as lines:
        work.watch()
        work.begin("3 records are being loaded")
        wait_for(lambda: len(lines) >= 2, "two lines are logged")
        work.end()
    assert {line["event"] for line in lines} == {"work.undone"}
    assert "it waits for a lock of somebody's session" in lines[-1]["why"]
