"""Tests that a consumer stays within `consumer.memory` and loads all bodies, whatever they are like."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import psycopg2.errors
import pytest
from pydantic import ValidationError

from consumers.dead_letters.letters import DeadLettersTable, LetterFilter
from ingest.errors import OutOfMemory, RowsTooLarge
from ingest.event import Event
from ingest.log import Record
from ingest.settings import Settings
from ingest.settings.sections import ConsumerSettings
from ingest.warehouse.errors import translated
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import TOPIC, sample
from tests.support.polling import wait_for
from tests.support.processes import descendants
from tests.support.settings import CommandRunner, Tree, with_section

BODY_LIMIT = 1024 * 1024
_MARK = b'"filler":null'


def large(kind: str, number: int, size: int = BODY_LIMIT) -> Event:
    """Return an event of a booking of its own, with a body of about `size` bytes.

    `kind` is one of KINDS.
    """
    event = sample(number, f"B{number}", number % 60, filler=None)
    body = event.data.replace(_MARK, KINDS[kind](size - len(event.data)))
    return replace(event, data=body)


def _answers(room: int) -> bytes:
    """Return form fields, each of which becomes an object of the column `answers`."""
    fields = [{"name": f"q{number}", "value": "a"} for number in range(room // 30)]
    return b'"filler":0,"form_submission":' + orjson.dumps(
        {"name": "Ada", "email": "ada@example.com", "custom_fields": fields}
    )


KINDS = {
    "text": lambda room: b'"filler":"' + b"a" * room + b'"',
    "many keys": lambda room: (
        b'"filler":' + orjson.dumps({f"{number:05x}": 0 for number in range(room // 10)})
    ),
    "empty lists": lambda room: b'"filler":[' + b",".join([b"[]"] * (room // 3)) + b"]",
    "small numbers": lambda room: b'"filler":[' + b",".join([b"1"] * (room // 2)) + b"]",
    "large numbers": lambda room: b'"filler":[' + b",".join([b"1e999"] * (room // 6)) + b"]",
    "deep lists": lambda room: b'"filler":' + b"[" * (room // 2) + b"]" * (room // 2),
    "escapes": lambda room: b'"filler":"' + b"\\u0000" * (room // 6) + b'"',
    "a long subject": lambda room: b'"subject":"' + b"s" * room + b'"',
    "answers": _answers,
}


_MIB = 1024 * 1024
# So many of each in the mixture; those that take a second each to read are fewer.
_SLOW = {"large numbers", "deep lists", "answers"}


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has had at any time."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def test_the_largest_bodies_beside_ordinary_ones_are_loaded_within_the_stated_memory(
    tmp_path: Path, either_tree: Tree
) -> None:
    secrets = {"INGEST_WAREHOUSE__CREDENTIALS": either_tree["warehouse"]["credentials"]}
    command = CommandRunner(tmp_path, with_section(either_tree, "warehouse", credentials=""), **secrets)
    kinds = [kind for kind in KINDS for _ in range(1 if kind in _SLOW else 4)]
    with open_consumer(either_tree) as harness:
        for number, kind in enumerate(kinds):
            harness.append(
                large(kind, number),
                *(sample(1000 + 20 * number + offset, f"O{number}-{offset}") for offset in range(20)),
            )
    with command.consuming() as consumer:
        readers = 0

        def is_loaded() -> bool:
            nonlocal readers
            with suppress(OSError, StopIteration):  # it ended meanwhile
                readers = max(readers, sum(peak_bytes(process.pid) for process in descendants(consumer.pid)))
            return command.lag() == 0

        wait_for(is_loaded, "everything loaded")
        peak = peak_bytes(consumer.pid) + readers
    with open_consumer(either_tree) as harness:
        assert harness.column("select count(*) from booking_events") == [21 * len(kinds)]
        assert harness.column("select count(*) from bookings") == [21 * len(kinds)]
        assert harness.column("select count(*) from dead_letters") == [0]
    assert peak <= command.settings.consumer.memory


def fail_beyond(
    harness: ConsumerHarness, most: int, failure: Callable[[], Exception], monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """Make loads of more event rows than `most` fail; return the growing list of their numbers of rows."""
    counts: list[int] = []
    load = harness.warehouse.load

    def limited(rows: Any) -> str:
        count = len(rows.get("booking_events", ()))
        counts.append(count)
        if count > most:
            raise failure()
        return load(rows)

    monkeypatch.setattr(harness.warehouse, "load", limited)
    return counts


@pytest.mark.parametrize(
    "failure", [lambda: OutOfMemory("the server has none left"), MemoryError], ids=["destination", "process"]
)
def test_a_batch_that_memory_does_not_suffice_for_is_halved_without_waiting(
    harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch, failure: Callable[[], Exception]
) -> None:
    harness.warehouse.prepare()
    fail_beyond(harness, 2, failure, monkeypatch)
    monkeypatch.setattr("consumers.loader._FIRST_PAUSE_SECONDS", 3600.0)  # who waits is seen
    harness.append(*(sample(number, f"B{number}") for number in range(16)))
    with harness.running():
        wait_for(lambda: harness.lag_outside() == 0, "everything loaded")
    assert harness.column("select count(*) from booking_events") == [16]
    assert harness.column("select count(*) from dead_letters") == [0]


def test_a_large_record_beside_a_small_one_is_tried_alone(
    harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.warehouse.prepare()
    fail_beyond(harness, 1, lambda: OutOfMemory("the server has none left"), monkeypatch)
    harness.append(sample(1, "B1"), large("text", 2), sample(3, "B3"))
    with harness.running():
        wait_for(lambda: harness.lag_outside() == 0, "everything loaded")
    assert harness.column("select count(*) from booking_events") == [3]


def test_one_record_that_the_machine_has_no_memory_for_waits_and_is_no_dead_letter(
    harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.warehouse.prepare()
    fail_beyond(harness, 0, lambda: OutOfMemory("the server has none left"), monkeypatch)
    harness.append(sample(1))
    with harness.running():
        wait_for(lambda: harness.loader.trouble, "the loader waits")
        assert "does not fit alone: the server has none left" in str(harness.loader.trouble)
        monkeypatch.undo()
        wait_for(lambda: harness.lag_outside() == 0, "everything loaded")
    assert harness.column("select count(*) from dead_letters") == [0]


def test_a_record_that_alone_fills_duckdbs_memory_is_set_aside_while_the_others_load(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ConsumerSettings, "duckdb_bytes", property(lambda _: 24 * _MIB))
    with open_consumer(tree) as harness:
        harness.load(sample(1, "B1"), large("small numbers", 2), sample(3, "B3"))
        assert sorted(harness.column("select id from booking_events")) == ["E1", "E3"]
        letter = harness.rows("select reason, detail, position from dead_letters")[0]
        assert (letter["reason"], letter["position"]) == ("load_refused", f"{TOPIC}/0/1")
        assert "raise consumer.memory" in letter["detail"]


def test_a_small_record_is_not_blamed_for_a_full_memory(
    harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.warehouse.prepare()
    fail_beyond(harness, 0, lambda: RowsTooLarge("the limit is reached"), monkeypatch)
    harness.append(sample(1))
    with pytest.raises(OutOfMemory, match="does not fit alone"):
        harness.loader.step()
    assert harness.lag() == 1


def test_large_stored_rows_that_many_small_messages_need_are_read_in_parts(either_tree: Tree) -> None:
    """A message that leaves a column out needs the whole stored row, which may be as large as a body."""
    with open_consumer(with_section(either_tree, "consumer", max_bytes=2 * _MIB)) as harness:
        harness.load(*(large("answers", number, 400_000) for number in range(12)))
        partly = [sample(100 + number, f"B{number}", 70) for number in range(12)]
        harness.load(*partly)
        assert harness.column("select count(*) from bookings where last_event_id like 'E1__'") == [12]


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (MemoryError(), OutOfMemory),
        (OSError(12, "Cannot allocate memory"), OutOfMemory),
        (psycopg2.errors.OutOfMemory("out of memory"), OutOfMemory),
    ],
)
def test_every_way_to_say_that_memory_is_short_is_understood(
    error: Exception, meaning: type[OutOfMemory]
) -> None:
    with pytest.raises(meaning) as raised, translated():
        raise error
    assert type(raised.value) is meaning


def test_memory_that_the_largest_body_does_not_fit_into_is_refused() -> None:
    tree = {"receiver": {"body_limit": 16 * _MIB, "in_flight_limit": 64 * _MIB}}
    least = 320 * _MIB + 96 * 16 * _MIB
    with pytest.raises(ValidationError, match=f"raise consumer.memory to at least {least}"):
        Settings.model_validate(tree)
    assert Settings.model_validate(tree | {"consumer": {"memory": least}}).consumer.batch_bytes == 8 * _MIB


def test_dead_letters_are_read_in_parts_that_fit(harness: ConsumerHarness) -> None:
    records = [
        Record("key", bytes([65 + number]) * (3 * _MIB), {"ce_id": f"L{number}"}) for number in range(6)
    ]
    harness.append_records("bookings.dead-letters", *records)
    harness.load()
    letters = DeadLettersTable(harness.settings)
    parts = list(letters.read(letters.ids(LetterFilter())))
    assert max(sum(len(stored.letter.data) for stored in part) for part in parts) <= 8 * _MIB
    assert [stored.id for part in parts for stored in part] == [f"L{number}" for number in range(6)]


def test_a_batch_never_holds_more_than_one_record_beyond_its_bytes(tree: Tree) -> None:
    with open_consumer(with_section(tree, "consumer", max_bytes=3 * _MIB, linger="1h")) as harness:
        harness.append(*(large("text", number) for number in range(8)))
        sizes: Sequence[int] = [stored.record.size for stored in harness.loader._collect().records]
    assert sum(sizes[:-1]) < 3 * _MIB <= sum(sizes)
    assert len(sizes) == 3
