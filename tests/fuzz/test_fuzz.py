"""The short form of `make fuzz`, as CI runs it, and that its checks can fail."""

from pathlib import Path

import pytest

from ingest.log import Record
from ingest.log.sqlite import SqliteProducer
from tests.consumers.postgres import PostgresServer
from tests.consumers.rig import opened, tree_for
from tests.fuzz.accounts import originals, sign
from tests.fuzz.kept import loaded, logged
from tests.fuzz.run import Asked, Report, run
from tests.fuzz.tally import NO_ANSWER, Tally
from tests.fuzz.traffic import ACCEPTED, REFUSED, Play, Shot, body_digest, plays
from tests.receivers.running import on_linux

BODY = b"{}"
PLAY, SHOT = Play("good"), Shot((b"POST",), ACCEPTED, body_digest(BODY))
LETTERS = "bookings.dead-letters"


def _run(folder: Path, requests: int, warehouses: dict[str, dict[str, str]]) -> Report:
    report = run(
        Asked(requests, seed=1, connections=48, workers=2, folder=folder / "fuzz"), warehouses, lambda _: None
    )
    assert report.faults() == []
    assert report.tally.requests >= requests
    assert {status for status, _ in report.tally.statuses().items()} == {
        NO_ANSWER,
        200,
        202,
        400,
        401,
        404,
        405,
        413,
        414,
        431,
    }
    return report


@on_linux
def test_twenty_thousand_hostile_requests_are_answered_rightly_and_what_is_accepted_is_kept_and_loaded(
    tmp_path: Path,
) -> None:
    report = _run(tmp_path, 20_000, {"duckdb": {}})
    (load,) = report.loads
    assert report.kept
    assert min(report.kept.events, report.kept.dead_letters, load.events, load.set_aside) > 100
    assert load.dead_letters > load.set_aside


@on_linux
@pytest.mark.postgres
def test_what_is_accepted_of_hostile_requests_is_loaded_into_a_postgresql_too(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    report = _run(
        tmp_path,
        4_000,
        {"postgres": {"destination": "postgres", "credentials": postgres.url, "dataset": "fuzz"}},
    )
    (load,) = report.loads
    assert min(load.events, load.set_aside) > 20


def test_a_seed_decides_what_is_sent() -> None:
    assert list(plays("1/1", 200)) == list(plays("1/1", 200)) != list(plays("2/1", 200))


def test_every_sample_is_among_what_is_sent_and_none_is_signed_as_another() -> None:
    assert {original.vendor for original in originals()} == {"calendly", "oncehub", "appointedd", "bookeo"}
    signatures = [
        tuple(sign(original.account, original.query, original.body, "m1"))
        for original in originals()
        if original.vendor != "appointedd"
    ]
    assert len(set(signatures)) == len(
        {(original.query, original.body) for original in originals() if original.vendor != "appointedd"}
    )


def test_a_wrong_answer_is_a_fault() -> None:
    tally = Tally()
    tally.answered(PLAY, SHOT, 202)
    tally.answered(Play("forged"), Shot((b"POST",), REFUSED), 401)
    tally.tailed(Play("broken", tail=b"GET"), [400])
    tally.tailed(Play("garbled", tail=b"GET", may_be_kept=body_digest(BODY)), [202])
    assert (tally.wrong, tally.requests) == (0, 4)
    tally.answered(PLAY, SHOT, 503)
    tally.answered(PLAY, SHOT, NO_ANSWER)
    tally.answered(Play("forged"), Shot((b"POST",), REFUSED), 202)
    tally.tailed(Play("broken", tail=b"GET"), [202])
    tally.tailed(Play("cut", tail=b"GET"), [400, 500])
    assert (tally.wrong, len(tally.faults), tally.requests) == (5, 5, 9)


def _write(log: Path, topic: str, *values: bytes, **headers: str) -> None:
    producer = SqliteProducer(log)
    producer.append(topic, [Record("key", value, headers) for value in values]).result(60)
    producer.close()


def test_what_was_acknowledged_and_is_not_in_the_log_is_a_fault_and_so_is_what_nobody_signed(
    tmp_path: Path,
) -> None:
    log, tally = tmp_path / "log.db", Tally()
    _write(log, "bookings.calendly", BODY)
    _write(log, LETTERS, b"left")
    tally.answered(PLAY, SHOT, 202)
    assert "1 records that nobody signed so" in logged(log, LETTERS, tally).faults[0]
    tally.let_go(PLAY, Shot((), ACCEPTED, body_digest(b"left")))
    assert logged(log, LETTERS, tally).faults == []
    tally.answered(PLAY, SHOT, 202)
    assert logged(log, LETTERS, tally).faults == ["1 acknowledged deliveries are not in the log"]


def test_a_record_that_is_neither_a_row_nor_a_dead_letter_is_a_fault(tmp_path: Path) -> None:
    log, tree = tmp_path / "log.db", tree_for(tmp_path)
    with opened(tree) as rig:
        rig.warehouse.prepare()
        rig.append_records("bookings.calendly", Record("key", BODY))
        rig.load()
        assert loaded(log, rig.settings, 0).faults == []
        rig.append_records(
            "bookings.calendly", Record("key", BODY, {"ce_source": "/calendly/sales", "ce_id": "1"})
        )
        rig.append_records(LETTERS, Record("key", BODY, {"ce_id": "2"}))
        faults = loaded(log, rig.settings, 0).faults
    assert faults == [
        "1 records are neither a row nor a dead letter",
        "1 dead letters are not both in the log and in the table",
    ]
