"""Tests of the process that reads the next batch during a load."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consumers.batch import Batch, read_batch
from consumers.contents import read_contents
from consumers.reading import ReadingProcess
from ingest.log import Record, StoredRecord
from ingest.vendors import BookingMapper
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import sample
from tests.support.polling import wait_for
from tests.support.settings import Tree, with_section

RECORDS = [
    *(sample(number, f"B{number}").to_record() for number in range(20)),
    replace(sample(20), data=b"{").to_record(),
    Record("key", b"{}", {}),
]


@pytest.fixture
def process() -> Iterator[ReadingProcess]:
    process = ReadingProcess()
    yield process
    process.close()


def pid_of(process: ReadingProcess) -> int:
    assert process._process
    return process._process.pid


def test_it_reads_the_same_contents_again_and_again(process: ReadingProcess) -> None:
    mapper = BookingMapper({})
    for records in (RECORDS, RECORDS[5:], []):
        assert process.read(records, mapper, list).result() == read_contents(records, mapper)


def test_it_reads_batches_that_wait_in_their_order(process: ReadingProcess) -> None:
    mapper = BookingMapper({})
    batches = [RECORDS, RECORDS[5:], RECORDS[:3]]
    results = [process.read(records, mapper, list) for records in batches]
    assert [result.result() for result in results] == [read_contents(records, mapper) for records in batches]


def test_without_its_process_nothing_is_read_and_the_next_batch_is_again(process: ReadingProcess) -> None:
    mapper = BookingMapper({})
    contents = process.read(RECORDS * 1000, mapper, list)
    os.kill(pid_of(process), 9)
    assert contents.result() is None
    wait_for(lambda: process._process and process._process.poll() is not None, "the process has ended")
    assert process.read(RECORDS, mapper, list).result() == read_contents(RECORDS, mapper)


def test_its_process_ends_when_the_consumer_is_killed() -> None:
    script = (
        "from consumers.reading import ReadingProcess; from ingest.vendors import BookingMapper;"
        "process = ReadingProcess(); process.read([], BookingMapper({}), list).result();"
        "print(process._process.pid, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as consumer:
        assert consumer.stdout
        pid = int(consumer.stdout.readline())
        consumer.kill()
    wait_for(lambda: not is_running(pid), "the process has ended")


def test_its_process_says_nothing_when_the_consumer_is_killed_while_it_writes_a_request() -> None:
    request = pickle.dumps((BookingMapper({}), [(b"{}", {})]))
    done = subprocess.run(
        [sys.executable, "-m", "consumers.reading"], input=request[:-3], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def is_running(pid: int) -> bool:
    try:
        with Path(f"/proc/{pid}/stat").open() as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def backlog(tree: Tree) -> Iterator[ConsumerHarness]:
    """Return a consumer that has a backlog of many batches, with a change of each booking in every one."""
    tree["consumer"]["max_records"] = 10
    with open_consumer(tree) as harness:
        harness.append(*(sample(number, f"B{number % 10}", number) for number in range(100)))
        yield harness


def check_loaded(harness: ConsumerHarness) -> None:
    assert harness.column("select count(*) from booking_events") == [100]
    newest = harness.column("select last_event_id from bookings order by last_event_id")
    assert newest == [f"E{number}" for number in range(90, 100)]


def test_a_backlog_is_read_ahead_and_loaded_in_its_order(
    backlog: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_here: list[int] = []

    def read(records: Sequence[StoredRecord], *arguments: Any) -> Batch:
        read_here.append(len(records))
        return read_batch(records, *arguments)

    monkeypatch.setattr("consumers.loader.read_batch", read)
    while backlog.lag():
        backlog.loader.step()
    assert read_here == [10]  # the first batch, before there was anything to load
    check_loaded(backlog)


def test_a_batch_whose_reading_broke_off_is_loaded_all_the_same(backlog: ConsumerHarness) -> None:
    while backlog.lag():
        backlog.loader.step()
        if backlog.loader._reading._process:
            backlog.loader._reading._process.kill()
    check_loaded(backlog)


def test_what_was_read_ahead_is_read_again_when_the_consumer_starts_over(backlog: ConsumerHarness) -> None:
    while backlog.lag():
        backlog.loader.step()
        backlog.loader._start_over()
    check_loaded(backlog)


def test_the_reading_process_imports_nothing_that_it_does_not_need() -> None:
    """Arrow alone would take 40 MiB of memory."""
    program = (
        "import sys, consumers.reading; print([name for name in ('pyarrow', 'dlt') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_rows_that_were_read_during_another_load_tell_when_they_were_loaded(tree: Tree) -> None:
    with open_consumer(with_section(tree, "consumer", max_records=50)) as harness:
        harness.load(*(sample(number, f"B{number}") for number in range(300)))
        loads = harness.column("select inserted_at from _dlt_loads order by inserted_at desc limit 6")[::-1]
        for table in ("booking_events", "bookings"):
            loaded = harness.column(f"select distinct loaded_at from {table} order by loaded_at")
            assert len(loaded) == 6
            assert all(began <= ended for began, ended in zip(loaded, loads, strict=True))
            assert all(ended <= began for ended, began in zip(loads, loaded[1:], strict=False))
