"""Turns at DuckDB's file that follow each other: it stays open for some of them, and readers get in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from consumers.warehouse import locks
from consumers.warehouse.locks import LoadingTurns
from ingest.errors import WarehouseUnavailable
from ingest.settings import Settings
from ingest.warehouse.duckdb_file import warehouse_lock
from ingest.warehouse.query import query
from tests.consumers.harness import open_consumer
from tests.consumers.samples import sample
from tests.support.settings import settings_tree


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(settings_tree(tmp_path))


@pytest.fixture
def turns(settings: Settings) -> Iterator[LoadingTurns]:
    turns = LoadingTurns(settings)
    yield turns
    turns.keep_open(False)


def is_free(settings: Settings) -> bool:
    """Return whether a reader would get a turn at once."""
    try:
        with warehouse_lock(settings.warehouse, 0.0):
            return True
    except WarehouseUnavailable:
        return False


def test_the_file_is_free_after_a_turn(settings: Settings, turns: LoadingTurns) -> None:
    with turns.turn(1.0):
        assert not is_free(settings)
    assert is_free(settings)


def test_the_file_stays_open_while_turns_follow_each_other(settings: Settings, turns: LoadingTurns) -> None:
    turns.keep_open(True)
    for _ in range(2):
        with turns.turn(1.0):
            pass
        assert not is_free(settings)
    turns.keep_open(False)
    assert is_free(settings)


def test_readers_get_in_while_turns_follow_each_other(
    settings: Settings, turns: LoadingTurns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_LONGEST_OPEN_SECONDS", 0.0)
    turns.keep_open(True)
    with turns.turn(1.0):
        pass
    assert is_free(settings)


def test_a_turn_that_fails_is_not_kept(settings: Settings, turns: LoadingTurns) -> None:
    turns.keep_open(True)
    with pytest.raises(ZeroDivisionError), turns.turn(1.0):
        raise ZeroDivisionError
    assert is_free(settings)


def test_another_file_in_its_place_is_noticed_by_each_turn(settings: Settings, turns: LoadingTurns) -> None:
    file = settings.warehouse.duckdb_file
    assert file is not None
    turns.keep_open(True)
    with turns.turn(1.0):
        pass
    file.rename(file.with_name("elsewhere"))
    with pytest.raises(WarehouseUnavailable, match="replaced"), turns.turn(1.0):
        pass
    assert is_free(settings)


def test_what_was_loaded_before_a_kill_is_in_the_file(tmp_path: Path) -> None:
    """A copy of the files is what a killed process leaves: rows are in the log of changes beside the file."""
    (tmp_path / "copy").mkdir()
    with open_consumer(settings_tree(tmp_path)) as harness:
        harness.warehouse.prepare()
        harness.warehouse.keep_open(True)
        harness.append(sample(1), sample(2, "B2"))
        records = harness.consumer.poll(10, 10.0)
        harness.loader._process(records, {})
        for file in tmp_path.glob("*.duckdb*"):
            (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    copied = Settings.model_validate(settings_tree(tmp_path / "copy"))
    rows = query(copied, "select booking_id from bookings order by 1").rows
    assert [row[0] for row in rows] == ["B1", "B2"]
