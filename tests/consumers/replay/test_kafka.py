"""Tests of `ingest replay` over a real Kafka: all partitions are read, each booking's records in order."""

import uuid
from pathlib import Path
from typing import Any

import pytest

from ingest.event import Event
from ingest.log import Record
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.replay.test_replay import OTHERWISE, alter_rows, snapshot, without_columns
from tests.consumers.samples import sample
from tests.support.polling import wait_for
from tests.support.processes import ingest
from tests.support.settings import settings_tree, with_section, write_settings

pytestmark = pytest.mark.kafka


def on_kafka(folder: Path, servers: list[str]) -> dict[str, Any]:
    """Return settings with topics and a group that no other test has."""
    name = f"replay-{uuid.uuid4().hex[:12]}"
    kafka = {"partitions": 3, "replication_factor": 1}
    return with_section(settings_tree(folder), "consumer", group=name) | {
        "log": f"kafka://{','.join(servers)}",
        "topic_prefix": name,
        "kafka": kafka,
    }


def append(harness: ConsumerHarness, *events: Event) -> None:
    harness.append_records(harness.settings.topic("oncehub"), *(event.to_record() for event in events))


def settle(harness: ConsumerHarness) -> None:
    wait_for(lambda: harness.lag_outside() == 0, "all is loaded")


def test_a_right_warehouse_stays_and_a_lost_one_comes_back_with_what_is_new(
    tmp_path: Path, kafka_servers: list[str]
) -> None:
    tree = on_kafka(tmp_path, kafka_servers)
    write_settings(tmp_path, {**tree, "accounts": {}})
    with open_consumer(tree) as harness:
        harness.warehouse.prepare()
        append(harness, *(sample(number, f"B{number % 40}", at=number // 60) for number in range(1500)))
        harness.append_records(
            harness.settings.topic("oncehub"),
            Record("oncehub/support/B", b"{", sample(1).to_record().headers),
        )
        with harness.running():
            settle(harness)
            before = snapshot(harness)
            assert len(before["bookings"]) == 40
            assert len(before["dead_letters"]) == 1
            result = ingest(tmp_path, "replay", "--json")
            assert (result.code, result.json["replayed"], result.json["loaded"]) == (0, 1502, True)
            assert snapshot(harness) == before
        for table in before:
            alter_rows(harness, "delete from {}", table)
        with harness.running():
            append(harness, sample(9000, "B7", at=9000))
            assert ingest(tmp_path, "replay", "--json").code == 0
            settle(harness)
        after = without_columns(snapshot(harness), *OTHERWISE)
    expected = without_columns(before, *OTHERWISE)
    assert [row["id"] for row in after["booking_events"]] == sorted(
        [*(row["id"] for row in expected["booking_events"]), "E9000"]
    )
    assert [row for row in after["bookings"] if row["booking_id"] != "B7"] == [
        row for row in expected["bookings"] if row["booking_id"] != "B7"
    ]
    assert [row["last_event_id"] for row in after["bookings"] if row["booking_id"] == "B7"] == ["E9000"]
    assert after["dead_letters"] == expected["dead_letters"]
