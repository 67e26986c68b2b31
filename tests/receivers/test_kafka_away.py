"""A receiver whose Kafka is away, with a real broker: it answers 202, survives a kill, and catches up."""

import json
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ingest.log import Record
from ingest.log.kafka import KafkaLogConsumer
from ingest.log.kafka_settings import KafkaSettings
from tests.kafka.broker import Broker, fetch
from tests.receivers.conftest import Start
from tests.receivers.requests import Request, booking_body, signed, subject
from tests.receivers.running import TOPIC, Receiver, delivering, on_linux, receiver_environment
from tests.support.polling import Deadline, wait_for
from tests.support.processes import ingest

pytestmark = pytest.mark.kafka
BOOKINGS = 5


@pytest.fixture
def broker(kafka_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:  # noqa: ARG001  it skips
    """Return a broker that is not started yet."""
    broker = Broker(fetch(), tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.stop()


@pytest.fixture
def away(broker: Broker, start: Start, tmp_path: Path) -> Receiver:
    """Return a receiver that started without its broker."""
    return start(**_kafka(broker, tmp_path))


def _kafka(broker: Broker, folder: Path) -> dict[str, str]:
    return {
        "INGEST_LOG": f"kafka://{broker.servers[0]}",
        "INGEST_KAFKA__PARTITIONS": "3",
        "INGEST_KAFKA__REPLICATION_FACTOR": "1",
        "INGEST_RECEIVER__SPOOL_DIR": str(folder / "spool"),
    }


def _change(number: int) -> Request:
    """Return a change of one of the bookings in turn, a second later than the one before."""
    document = json.loads(booking_body(number % BOOKINGS))
    document["created_at"] = document["payload"]["updated_at"] = (
        f"2026-06-09T21:{number // 60:02}:{number % 60:02}.000000Z"
    )
    return signed(json.dumps(document).encode())


def _arrived(broker: Broker, least: int) -> list[Record]:
    """Return all that is in the log once it has so many distinct events."""
    events: list[Record] = []
    with closing(KafkaLogConsumer(broker.servers, KafkaSettings(), "test", [TOPIC])) as consumer:
        deadline = Deadline("the records are in the log")
        while len({record.headers["ce_id"] for record in events}) < least:
            deadline.check()
            events += [stored.record for stored in consumer.poll(500, 1.0)]
    return events


# A worker's signs of life wait with the deliveries.
_SIGNS = 9


def _metric(receiver: Receiver, name: str) -> float:
    lines = receiver.admin.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


def test_deliveries_are_kept_over_a_kill_and_arrive_in_order_when_the_broker_is_there(
    broker: Broker, away: Receiver, start: Start, tmp_path: Path
) -> None:
    assert {away.send(_change(number)).status_code for number in range(30)} == {202}
    away.kill()
    again = start(**_kafka(broker, tmp_path))
    assert {again.send(_change(number)).status_code for number in range(30, 60)} == {202}
    wait_for(
        lambda: 60 <= _metric(again, "ingest_spool_records") <= 60 + _SIGNS, "the metrics tell what waits"
    )
    broker.start()
    arrived = _arrived(broker, 60)
    wait_for(lambda: _metric(again, "ingest_spool_records") == 0, "nothing waits any more")
    by_booking: dict[str, list[str]] = defaultdict(list)
    for record in arrived:
        by_booking[record.headers["ce_subject"]].append(record.headers["ce_time"])
    assert {booking: list(dict.fromkeys(times)) for booking, times in by_booking.items()} == {
        subject(booking): [f"2026-06-09T21:00:{second:02}.000000Z" for second in range(booking, 60, BOOKINGS)]
        for booking in range(BOOKINGS)
    }
    assert again.send(_change(60)).status_code == 202
    assert len(_arrived(broker, 61)) >= 61


def test_it_is_ready_and_status_tells_what_waits_and_for_how_long(
    broker: Broker, away: Receiver, tmp_path: Path
) -> None:
    assert away.send(_change(0)).status_code == 202
    assert away.admin.get("/readyz").status_code == 200
    document = ingest(tmp_path, "status", "--json", **_settings(broker, tmp_path))
    assert document.code == 3, "the log itself is away"
    [file] = document.json["spool"]["files"]
    assert 1 <= file["records"] <= 1 + _SIGNS
    assert file["file"] == str(tmp_path / "spool" / "spool-000.db")
    assert file["oldest"].endswith("Z")
    assert file["oldest_seconds"] >= 0
    assert "spool-000.db" in ingest(tmp_path, "status", **_settings(broker, tmp_path)).out


@on_linux
def test_what_a_killed_worker_had_kept_is_counted_once(broker: Broker, start: Start, tmp_path: Path) -> None:
    receiver = start(**_kafka(broker, tmp_path), INGEST_RECEIVER__WORKERS="2")
    assert {receiver.send(_change(number)).status_code for number in range(20)} == {202}
    wait_for(lambda: 20 <= _metric(receiver, "ingest_spool_records") <= 20 + _SIGNS, "it is counted")
    victims = receiver.children()
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(set(receiver.children()) - set(victims)) == 2, "there are new workers")
    wait_for(
        lambda: 20 <= _metric(receiver, "ingest_spool_records") <= 20 + _SIGNS, "they have what was left"
    )


def test_without_a_spool_that_can_be_used_it_says_so_and_answers_503(
    broker: Broker, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "occupied").write_text("a file")
    receiver = start(**_kafka(broker, tmp_path) | {"INGEST_RECEIVER__SPOOL_DIR": str(tmp_path / "occupied")})
    assert "spool.unusable" in receiver.written()
    assert receiver.send(_change(0)).status_code == 503
    assert receiver.admin.get("/readyz").status_code == 503
    checked = ingest(
        tmp_path,
        "check",
        "--json",
        **_settings(broker, tmp_path) | {"INGEST_RECEIVER__SPOOL_DIR": str(tmp_path / "occupied")},
    )
    assert [event["ok"] for event in checked.json["checks"] if event["check"] == "spool"] == [False]


def _settings(broker: Broker, folder: Path) -> dict[str, str]:
    return {
        name: value
        for name, value in receiver_environment(folder, _kafka(broker, folder)).items()
        if name.startswith("INGEST_")
    }


@on_linux
def test_no_worker_of_several_loses_what_it_accepted_while_the_broker_was_frozen(
    broker: Broker, start: Start, tmp_path: Path
) -> None:
    broker.start()
    receiver = start(**_kafka(broker, tmp_path), INGEST_RECEIVER__WORKERS="2")
    with delivering(receiver) as senders:
        broker.freeze()
        before = len(senders.accepted())
        wait_for(
            lambda: len(senders.accepted()) > before + 100,
            "deliveries are accepted though the broker is silent",
        )
        receiver.kill()
    broker.thaw()
    start(**_kafka(broker, tmp_path), INGEST_RECEIVER__WORKERS="2")
    accepted = senders.accepted()
    assert accepted <= {record.headers["ce_subject"] for record in _arrived(broker, len(accepted))}
