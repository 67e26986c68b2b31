"""The short form of `make fuzz`, as CI runs it, and proof that its checks can fail."""

from pathlib import Path

import pytest

from ingest.log import Record
from ingest.log.sqlite import SqliteProducer
from tests.consumers.harness import open_consumer
from tests.consumers.postgres import PostgresServer
from tests.fuzz.accounts import samples, sign
from tests.fuzz.run import Options, Report, run
from tests.fuzz.tally import NO_ANSWER, Tally
from tests.fuzz.traffic import ACCEPTED, REFUSED, Exchange, Message, body_digest, exchanges
from tests.fuzz.verification import verify_log, verify_warehouse
from tests.receivers.running import on_linux
from tests.support.settings import settings_tree

BODY = b"{}"
EXCHANGE, MESSAGE = Exchange("good"), Message((b"POST",), ACCEPTED, body_digest(BODY))
LETTERS = "bookings.dead-letters"


def _run(folder: Path, requests: int, warehouses: dict[str, dict[str, str]]) -> Report:
    report = run(
        Options(requests, seed=1, connections=48, workers=2, folder=folder / "fuzz"),
        warehouses,
        lambda _: None,
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
    assert report.log_result
    assert min(report.log_result.events, report.log_result.dead_letters, load.events, load.set_aside) > 100
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
    assert list(exchanges("1/1", 200)) == list(exchanges("1/1", 200)) != list(exchanges("2/1", 200))


def test_every_sample_is_among_what_is_sent_and_none_is_signed_as_another() -> None:
    assert {sample.vendor for sample in samples()} == {"calendly", "oncehub", "appointedd", "bookeo"}
    signatures = [
        tuple(sign(sample.account, sample.query, sample.body, "m1"))
        for sample in samples()
        if sample.vendor != "appointedd"
    ]
    assert len(set(signatures)) == len(
        {(sample.query, sample.body) for sample in samples() if sample.vendor != "appointedd"}
    )


def test_a_wrong_answer_is_a_fault() -> None:
    tally = Tally()
    tally.count_answer(EXCHANGE, MESSAGE, 202)
    tally.count_answer(Exchange("forged"), Message((b"POST",), REFUSED), 401)
    tally.count_tail(Exchange("broken", tail=b"GET"), [400])
    tally.count_tail(Exchange("garbled", tail=b"GET", possible_digest=body_digest(BODY)), [202])
    assert (tally.wrong, tally.requests) == (0, 4)
    tally.count_answer(EXCHANGE, MESSAGE, 503)
    tally.count_answer(EXCHANGE, MESSAGE, NO_ANSWER)
    tally.count_answer(Exchange("forged"), Message((b"POST",), REFUSED), 202)
    tally.count_tail(Exchange("broken", tail=b"GET"), [202])
    tally.count_tail(Exchange("cut", tail=b"GET"), [400, 500])
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
    tally.count_answer(EXCHANGE, MESSAGE, 202)
    assert "1 records that nobody signed so" in verify_log(log, LETTERS, tally).faults[0]
    tally.count_abandoned(EXCHANGE, Message((), ACCEPTED, body_digest(b"left")))
    assert verify_log(log, LETTERS, tally).faults == []
    tally.count_answer(EXCHANGE, MESSAGE, 202)
    assert verify_log(log, LETTERS, tally).faults == ["1 acknowledged deliveries are not in the log"]


def test_a_record_that_is_neither_a_row_nor_a_dead_letter_is_a_fault(tmp_path: Path) -> None:
    log, tree = tmp_path / "log.db", settings_tree(tmp_path)
    with open_consumer(tree) as harness:
        harness.warehouse.prepare()
        harness.append_records("bookings.calendly", Record("key", BODY))
        harness.load()
        assert verify_warehouse(log, harness.settings, 0).faults == []
        harness.append_records(
            "bookings.calendly", Record("key", BODY, {"ce_source": "/calendly/sales", "ce_id": "1"})
        )
        harness.append_records(LETTERS, Record("key", BODY, {"ce_id": "2"}))
        faults = verify_warehouse(log, harness.settings, 0).faults
    assert faults == [
        "1 records are neither a row nor a dead letter",
        "1 dead letters are not both in the log and in the table",
    ]
