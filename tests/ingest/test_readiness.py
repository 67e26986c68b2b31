"""Readiness is found out by doing, seldom, and nobody waits long for the answer."""

import asyncio
import threading

import httpx

from ingest.admin import build_admin
from ingest.errors import LogUnavailable, WarehouseUnavailable
from ingest.readiness import Readiness, State, failed, ok, readiness_body, warning


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
