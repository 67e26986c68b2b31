"""Tests of one DuckDB file and several processes: loads wait, and readers get their turns."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from consumers.warehouse import Warehouse
from ingest.errors import ConfigurationError, WarehouseUnavailable
from ingest.log import Record
from ingest.settings import Settings
from ingest.warehouse.query import query
from tests.consumers.harness import ConsumerHarness
from tests.consumers.samples import TOPIC, sample
from tests.support.polling import wait_for
from tests.support.processes import PythonProcess
from tests.support.settings import Tree, with_section

# Tries until it gets the file, which a loader may have open.
_HOLDER = """
import sys, duckdb
held = None
while held is None:
    try:
        held = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "reads")
    except duckdb.IOException:
        pass
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def hold_file(harness: ConsumerHarness, by: str = "reads") -> Iterator[None]:
    """Hold the file open as another program does, which takes no turns."""
    with PythonProcess(_HOLDER, str(harness.settings.warehouse.duckdb_file), by) as holder:
        assert holder.read_line() == "held"
        yield
        holder.finish()


def test_a_program_that_holds_the_file_delays_loads_and_breaks_nothing(harness: ConsumerHarness) -> None:
    harness.load(sample(1))
    with harness.running():
        with hold_file(harness):
            harness.append(sample(2, at=2), sample(3, "B3"))
            wait_for(
                lambda: isinstance(harness.loader.trouble, WarehouseUnavailable),
                "the loader says that it waits",
            )
            assert harness.lag_outside() == 2
        wait_for(lambda: harness.lag_outside() == 0, "everything committed")
    assert harness.loader.trouble is None
    assert sorted(harness.column("select last_event_id from bookings")) == ["E2", "E3"]
    assert harness.column("select count(*) from booking_events") == [3]


def test_a_bad_record_is_set_aside_once_however_often_its_batch_has_to_be_loaded(
    harness: ConsumerHarness,
) -> None:
    record = sample(1).to_record()
    harness.load(sample(0))
    harness.append_records(TOPIC, Record(record.key, b"{", record.headers), sample(2).to_record())
    with hold_file(harness):
        for _ in range(3):
            with pytest.raises(WarehouseUnavailable):
                harness.loader.step()
            harness.loader._start_over()
    harness.load()
    assert harness.written("bookings.dead-letters") == 1
    assert harness.column("select reason from dead_letters") == ["unreadable_record"]


def test_readers_get_their_turns_while_the_loader_loads_all_the_time(harness: ConsumerHarness) -> None:
    harness.load(sample(0, "B0"))
    counts: list[int] = []
    with harness.running():
        for number in range(1, 26):
            harness.append(sample(number, f"B{number}"))
            counts += harness.column("select count(*) from bookings")
        wait_for(lambda: harness.lag_outside() == 0, "everything committed")
    assert counts == sorted(counts)
    assert counts[0] < counts[-1] <= 26
    assert harness.column("select count(*) from bookings") == [26]


def test_a_reader_says_when_another_program_writes(harness: ConsumerHarness) -> None:
    harness.load(sample(0))
    with (
        hold_file(harness, "writes"),
        pytest.raises(WarehouseUnavailable, match="is held by another program"),
    ):
        query(harness.settings, "select 1")


def test_a_file_is_read_as_it_is_now_also_after_an_error_and_a_restore(harness: ConsumerHarness) -> None:
    harness.load(sample(0, "B0"))
    bookings = "select booking_id from bookings order by booking_id"
    assert harness.column(bookings) == ["B0"]
    with pytest.raises(ConfigurationError):
        query(harness.settings, "select nothing from bookings")
    file = harness.settings.warehouse.duckdb_file
    assert file is not None
    backup = file.read_bytes()
    harness.load(sample(1, "B1"))
    assert harness.column(bookings) == ["B0", "B1"]
    file.unlink()
    file.write_bytes(backup)
    assert harness.column(bookings) == ["B0"]


@pytest.mark.parametrize("name", ["ingest", "Ingest", "ingest_staging"])
def test_a_file_called_like_a_dataset_is_a_wrong_setting(tree: Tree, name: str) -> None:
    credentials = tree["warehouse"]["credentials"].replace("warehouse.duckdb", f"{name}.duckdb")
    settings = Settings.model_validate(with_section(tree, "warehouse", credentials=credentials))
    with pytest.raises(ConfigurationError, match="give the file another name"):
        Warehouse(settings)
