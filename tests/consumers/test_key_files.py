"""Tests of the files of sorted look-up keys: they find rows and never hide one, whatever happens."""

import random
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from consumers.warehouse import duckdb_tables, key_files, sorted_keys
from consumers.warehouse.duckdb_tables import DuckDBTables
from consumers.warehouse.key_files import KeyFiles
from consumers.warehouse.sorted_keys import SortedKeys, write_sorted
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import sample
from tests.consumers.test_tables import EVENTS, NEWEST, execute, pairs
from tests.support.settings import Tree

KEYS = st.integers(-(1 << 31), (1 << 31) - 1) | st.sampled_from([-(1 << 31), -1, 0, 7, (1 << 31) - 1])


@given(st.lists(KEYS, max_size=60), st.lists(KEYS, max_size=5), st.integers(1, 20))
def test_a_file_has_all_entries_of_a_key(
    tmp_path_factory: pytest.TempPathFactory, keys: list[int], others: list[int], batch_rows: int
) -> None:
    file = tmp_path_factory.mktemp("keys") / "file"
    entries = sorted((key << 32) + number for number, key in enumerate(keys))
    batches = pa.table({"entry": pa.array(entries, pa.int64())}).to_batches(batch_rows)
    with pytest.MonkeyPatch.context() as small:
        small.setattr(sorted_keys, "_STEP", 4)
        found = SortedKeys(file, write_sorted(file, batches))
        for key in {*keys, *others}:
            expected = [(key, number) for number, other in enumerate(keys) if other == key]
            assert list(found.find([key])) == expected
        with pytest.raises(OSError, match="another size"):
            SortedKeys(file, len(entries) + 1)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make files also for small tables, and often."""
    monkeypatch.setattr(key_files, "_ROWS_WORTH_A_FILE", 2)
    monkeypatch.setattr(key_files, "_SEARCHES_WORTH_A_FILE", 3)
    monkeypatch.setattr(key_files, "_ROWS_PER_SORT", 5)
    monkeypatch.setattr(duckdb_tables, "_ROWS_READ_ALONE", 1)


def renumber(harness: ConsumerHarness, tmp_path: Path) -> None:  # noqa: ARG001 - as the others
    """Give rows other numbers, as DuckDB does when it drops deleted rows."""
    for table in ("{bookings}", "{booking_events}"):
        execute(
            harness,
            f"CREATE TEMP TABLE kept AS SELECT * FROM {table} ORDER BY random();"
            f" DELETE FROM {table}; CHECKPOINT; INSERT INTO {table} SELECT * FROM kept",
        )


def remove_files(harness: ConsumerHarness, tmp_path: Path) -> None:  # noqa: ARG001 - as the others
    for file in key_folder(harness).glob("*"):
        file.unlink()


def cut_files(harness: ConsumerHarness, tmp_path: Path) -> None:  # noqa: ARG001 - as the others
    for file in key_folder(harness).glob("*"):
        file.write_bytes(file.read_bytes()[:-8])


def keep_copy(harness: ConsumerHarness, tmp_path: Path) -> None:
    shutil.copy(database(harness), tmp_path / "kept")


def restore_copy(harness: ConsumerHarness, tmp_path: Path) -> None:
    if (tmp_path / "kept").exists():
        shutil.copy(tmp_path / "kept", database(harness))
        database(harness).with_name(f"{database(harness).name}.wal").unlink(missing_ok=True)


def delete_and_copy_rows(harness: ConsumerHarness, tmp_path: Path) -> None:  # noqa: ARG001 - as the others
    """Delete rows, and insert one of them again with all of its columns."""
    execute(
        harness,
        "CREATE TEMP TABLE kept AS SELECT * FROM {bookings} ORDER BY booking_id LIMIT 2;"
        " DELETE FROM {bookings} WHERE booking_id IN (SELECT booking_id FROM kept);"
        " INSERT INTO {bookings} SELECT * FROM kept",
    )


def database(harness: ConsumerHarness) -> Path:
    file = harness.settings.warehouse.duckdb_file
    assert file
    return file


def key_folder(harness: ConsumerHarness) -> Path:
    return database(harness).with_name(f"{database(harness).name}.keys")


EVENTFUL: list[Callable[[ConsumerHarness, Path], None]] = [
    renumber, remove_files, cut_files, keep_copy, restore_copy, delete_and_copy_rows,
]  # fmt: skip


class Killed(BaseException):
    """The end of a process, as far as one can have it within a test."""


STEPS = [
    (key_files, "write_sorted"), (KeyFiles, "note_write"), (KeyFiles, "set_written"),
    (KeyFiles, "make_if_due"), (KeyFiles, "set_gone"), (DuckDBTables, "_search"), (DuckDBTables, "_delete"),
]  # fmt: skip


def kill_at(monkeypatch: pytest.MonkeyPatch, chance: random.Random) -> None:
    """Let the process end before or after a step."""
    owner, name = chance.choice(STEPS)
    step, is_before = getattr(owner, name), chance.random() < 0.5

    def killed(*arguments: Any) -> Any:
        if not is_before:
            step(*arguments)
        raise Killed

    monkeypatch.setattr(owner, name, killed)


@pytest.mark.usefixtures("always")
def test_rows_are_found_by_the_file_and_searched_only_when_they_are_no_longer_there(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []
    search = DuckDBTables._search

    def noted(tables: DuckDBTables, table: str, *arguments: Any) -> set[int]:
        searched.append(table)
        return search(tables, table, *arguments)

    monkeypatch.setattr(DuckDBTables, "_search", noted)
    with open_consumer(tree) as harness:
        harness.load(*(sample(number, f"B{number}") for number in range(9)))
        tables = ("bookings", "booking_events")
        assert {file.name.split(".")[1] for file in key_folder(harness).iterdir()} == {*tables}
        with harness.warehouse.turn():
            files = harness.warehouse._tables._key_files  # type: ignore[attr-defined]
            assert [keys.size for table in tables if (keys := files.keys(table))] == [9, 9]
        harness.load(sample(2, "B2"), sample(10, "B10"))
        assert searched == []
        renumber(harness, tmp_path)
        harness.load(sample(13, "B3", at=60), sample(14, "B8", at=60))
        assert searched[0] == "bookings"
        assert pairs(harness, NEWEST)[4:] == [
            ("B3", "E13"), ("B4", "E4"), ("B5", "E5"), ("B6", "E6"), ("B7", "E7"), ("B8", "E14"),
        ]  # fmt: skip


@pytest.mark.usefixtures("always")
def test_a_row_that_was_deleted_and_is_there_again_with_a_restored_copy_is_found(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_consumer(tree) as harness:
        harness.load(*(sample(number, f"B{number}") for number in range(9)))
        monkeypatch.setattr(key_files, "_ROWS_WORTH_A_FILE", 1000)
        keep_copy(harness, tmp_path)
        harness.load(sample(11, "B1", at=60))
        restore_copy(harness, tmp_path)
        harness.load(sample(12, "B1", at=120))
        assert pairs(harness, NEWEST)[1:3] == [("B1", "E12"), ("B2", "E2")]


@pytest.mark.usefixtures("always")
def test_rows_that_others_insert_with_all_columns_are_found(tree: Tree, tmp_path: Path) -> None:
    with open_consumer(tree) as harness:
        harness.load(*(sample(number, f"B{number}") for number in range(5)))
        elsewhere = f"'{tmp_path}/rows.parquet'"
        execute(harness, f"COPY (SELECT * FROM {{bookings}} WHERE booking_id = 'B1') TO {elsewhere}")
        execute(harness, "DELETE FROM {bookings} WHERE booking_id = 'B1'")
        for number in range(10, 16):  # the file is made anew, without the row
            harness.load(sample(number, f"B{number}"), sample(number + 10, f"B{number + 10}"))
        execute(harness, f"INSERT INTO {{bookings}} SELECT * FROM {elsewhere}")
        with capture_logs() as logged:
            harness.load(sample(2, "B2"), sample(30, "B1", at=60))
        assert [line["table"] for line in logged if line["event"] == "warehouse.key_file_unused"] == [
            "bookings"
        ]
        assert [pair for pair in pairs(harness, NEWEST) if pair[0] == "B1"] == [("B1", "E30")]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("seed", range(4))
def test_no_event_is_lost_or_doubled_whatever_happens(tree: Tree, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    newest: dict[str, tuple[int, str]] = {}
    count = 0
    with ExitStack() as process:
        harness = process.enter_context(open_consumer(tree))
        for _ in range(25):
            if chance.random() < 0.3:
                chance.choice(EVENTFUL)(harness, tmp_path)
            numbers = [
                *range(count, count + chance.randrange(4)),
                *chance.sample(range(count), min(count, 1)),
            ]
            count = max([count, *(number + 1 for number in numbers)])
            events = [event_of(number) for number in numbers]
            for event, number in zip(events, numbers, strict=True):
                newest[event.subject] = max(newest.get(event.subject, (-1, "")), (at(number), event.id))
            with pytest.MonkeyPatch.context() as kill:
                is_ended = chance.random() < 0.1
                if chance.random() < 0.3:
                    kill_at(kill, chance)
                harness.append(*events)
                try:
                    harness.load()
                except Killed:
                    is_ended = True
            if is_ended:
                process.close()
                harness = process.enter_context(open_consumer(tree))
                harness.load()
        last = event_of(count)  # a load finds what a restored warehouse lacks
        newest[last.subject] = max(newest.get(last.subject, (-1, "")), (at(count), last.id))
        harness.load(last)
        assert harness.column(EVENTS) == sorted(f"E{number}" for number in range(count + 1))
        assert pairs(harness, NEWEST) == sorted((booking, event) for booking, (_, event) in newest.items())


def at(number: int) -> int:
    """Return when an event happened: those of one booking come in any order, each at another time."""
    return number * 7919 % 1009


def event_of(number: int) -> Any:
    return sample(number, f"B{number % 17 if number % 3 else number}", at=at(number))
