"""Compares the log with what was acknowledged, and the warehouse with the log."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ingest.event import RECEIVER_SOURCE
from ingest.settings import Settings
from ingest.warehouse.query import query
from tests.fuzz.tally import Tally
from tests.fuzz.traffic import body_digest


@dataclass(frozen=True, slots=True)
class LogResult:
    """What a receiver left in the log."""

    events: int
    dead_letters: int
    faults: list[str]


@dataclass(frozen=True, slots=True)
class WarehouseResult:
    """What a consumer loaded. `set_aside` are the records of the log that became dead letters."""

    destination: str
    events: int
    dead_letters: int
    set_aside: int
    seconds: float
    faults: list[str]


@dataclass(frozen=True, slots=True)
class _Row:
    topic: str
    position: str
    identity: tuple[str, str]
    value: bytes


def verify_log(log: Path, dead_letters: str, tally: Tally) -> LogResult:
    """Verify that the log has exactly what was acknowledged, to the byte, and nothing that nobody signed."""
    digests: Counter[bytes] = Counter()
    topics: Counter[str] = Counter()
    for row in _deliveries(log):
        digests[body_digest(row.value)] += 1
        topics[row.topic] += 1
    lost = (tally.acknowledged - digests).total()
    strange = (digests - tally.acknowledged - tally.possible).total()
    faults = [f"{lost} acknowledged deliveries are not in the log"] if lost else []
    faults += [f"{strange} records that nobody signed so, or not so often"] if strange else []
    return LogResult(topics.total() - topics[dead_letters], topics[dead_letters], faults)


def verify_warehouse(log: Path, settings: Settings, seconds: float) -> WarehouseResult:
    """Verify that every record is a row or a dead letter with its position, and every row is of a record."""
    events = set(query(settings, "select source, id from booking_events").rows)
    letters = dict(query(settings, "select id, position from dead_letters").rows)
    positions = {position for position in letters.values() if position}
    log_events, log_letters, missing = set(), set(), 0
    for row in _deliveries(log):
        if row.topic == settings.dead_letter_topic:
            log_letters.add(row.identity[1])
        elif row.identity in events:
            log_events.add(row.identity)
        else:
            missing += row.position not in positions
    faults = [f"{missing} records are neither a row nor a dead letter"] if missing else []
    faults += (
        [f"{len(events - log_events)} rows of booking_events that the log does not tell of"]
        if events - log_events
        else []
    )
    faults += (
        [f"{len(letters.keys() ^ log_letters)} dead letters are not both in the log and in the table"]
        if letters.keys() ^ log_letters
        else []
    )
    return WarehouseResult(
        settings.warehouse.destination, len(events), len(letters), len(positions), seconds, faults
    )


def _deliveries(log: Path) -> Iterator[_Row]:
    """Yield the records that are not the receivers' own, as their signs of life are."""
    with closing(sqlite3.connect(f"file:{log}?mode=ro", uri=True)) as connection:
        for topic, offset, value, headers in connection.execute(
            "select topic, offset, value, headers from records order by topic, offset"
        ):
            attributes = json.loads(headers)
            if attributes.get("ce_source") != RECEIVER_SOURCE:
                identity = attributes.get("ce_source", ""), attributes.get("ce_id", "")
                yield _Row(topic, f"{topic}/0/{offset}", identity, value)
