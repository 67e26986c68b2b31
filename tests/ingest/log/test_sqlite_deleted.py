"""An embedded log whose -wal or -shm is deleted while it is used: nothing that was acknowledged is lost."""

import os
import resource
import signal
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest

from ingest.errors import LogUnavailable
from ingest.log import Record
from ingest.log.sqlite import SqliteProducer, SqliteReader
from ingest.log.sqlite.reader import extent, try_append
from tests.ingest.log.harness import append, numbered, read, values
from tests.ingest.log.sqlite_files import (
    TOPIC,
    Writer,
    all_in,
    backlog_of,
    consumer_of,
    in_main_file,
    large,
    take_away,
    texts,
)
from tests.support.polling import Deadline, wait_for
from tests.support.processes import PythonProcess

_READER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM records").fetchone()
print("reading", flush=True)
sys.stdin.readline()
time.sleep(0.5)
connection.execute("ROLLBACK")
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("kinds", [("wal",), ("shm",), ("wal", "shm")], ids=" ".join)
def test_what_is_acknowledged_is_there_though_files_beside_it_are_deleted_and_the_process_is_killed(
    path: Path, writer: Writer, kinds: Sequence[str]
) -> None:
    writer.append(*texts("before", 30))
    take_away(path, *kinds)
    writer.append(*texts("after", 30))
    writer.kill()
    assert len(writer.acknowledged) > 50
    assert set(writer.acknowledged) <= set(all_in(path))


@pytest.mark.parametrize("kinds", [("wal",), ("shm",), ("wal", "shm")], ids=" ".join)
def test_several_processes_and_a_consumer_get_over_it(
    path: Path, writer: Writer, kinds: Sequence[str]
) -> None:
    other = Writer(path)
    with closing(consumer_of(path)) as consumer, closing(SqliteProducer(path)) as beside:
        writer.append(*texts("one", 10))
        other.append(*texts("two", 10))
        records = read(consumer, 20)
        take_away(path, *kinds)
        for number in range(20):
            writer.append(f"one after {number}")
            other.append(f"two after {number}")
            with suppress(LogUnavailable):
                append(beside, TOPIC, Record("key", f"three after {number}".encode()))
                other.acknowledged.append(f"three after {number}".encode())
        other.kill()
        acknowledged = {*writer.acknowledged, *other.acknowledged}
        deadline = Deadline("every acknowledged record is read")
        while not acknowledged <= set(values(records)):
            deadline.check()
            with suppress(LogUnavailable):
                records += consumer.poll(100, 0.5)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_idle_process_lets_go_of_a_wal_that_was_deleted_and_saves_what_is_in_it(
    path: Path, writer: Writer
) -> None:
    writer.append(*texts("before", 5))
    take_away(path, "wal", "shm")
    wait_for(lambda: set(in_main_file(path)) == set(writer.acknowledged), "the records are in the main file")


def test_what_is_in_a_deleted_wal_is_saved_though_a_reader_still_needs_what_was_before(
    path: Path, writer: Writer
) -> None:
    writer.append(*large("before", 5))
    with PythonProcess(_READER, str(path)) as reader:
        assert reader.read_line() == "reading"
        writer.append(*large("since", 20))
        take_away(path, "wal")
        reader.write_line("read on for a moment")
        writer.append("at last")
        assert reader.read_line() == "done"
    writer.kill()
    assert len(writer.acknowledged) >= 25
    assert set(all_in(path)) >= set(writer.acknowledged)


def test_what_is_in_a_deleted_wal_is_saved_once_its_disk_has_room_again(path: Path, writer: Writer) -> None:
    writer.append(*large("before", 20))
    resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    take_away(path, "wal")
    writer.append("on a full disk")
    with suppress(LogUnavailable):
        try_append(path)
    resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    writer.append("at last")
    writer.kill()
    assert writer.acknowledged[-1] == b"at last"
    assert set(all_in(path)) >= set(writer.acknowledged)


def test_nobody_opens_a_log_whose_deleted_wal_another_process_has_yet_to_save(
    path: Path, writer: Writer
) -> None:
    writer.append(*large("before", 20))
    os.kill(writer.pid, signal.SIGSTOP)
    take_away(path, "wal")
    with pytest.raises(LogUnavailable, match="its -wal is gone while other processes use the log"):
        SqliteProducer(path)
    os.kill(writer.pid, signal.SIGCONT)
    writer.append("at last")
    with closing(SqliteProducer(path)) as beside:
        append(beside, TOPIC, Record("key", b"beside"))
    assert set(all_in(path)) >= {*writer.acknowledged, b"at last", b"beside"}


def extent_of(path: Path) -> object:
    return extent(path)


def all_read_from(path: Path) -> object:
    with closing(SqliteReader(path, [TOPIC], None)) as reader:
        return list(reader.records())


@pytest.mark.parametrize("look", [backlog_of, extent_of, all_read_from])
def test_nobody_reads_a_log_whose_deleted_wal_another_process_has_yet_to_save(
    path: Path, writer: Writer, look: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.append(*large("before", 20))
    os.kill(writer.pid, signal.SIGSTOP)
    take_away(path, "wal")
    with monkeypatch.context() as patch:
        patch.setattr("ingest.log.sqlite.reader._REPLACING_SECONDS", 0.0)
        with pytest.raises(LogUnavailable, match="its -wal is gone while other processes use the log"):
            look(path)
    assert not path.with_name("log.db-wal").exists()
    threading.Timer(0.2, lambda: os.kill(writer.pid, signal.SIGCONT)).start()
    assert look(path)
    writer.append("at last")
    assert set(all_in(path)) >= {*writer.acknowledged, b"at last"}


def go_on_without_the_wal(path: Path, writer: Writer, statement: str) -> Callable[[str], None]:
    """Return a trace of statements that deletes the -wal at the first of these, and lets `writer` go on."""
    waiting = [large("meanwhile", 20)]

    def trace(sql: str) -> None:
        if sql.startswith(statement) and waiting:
            take_away(path, "wal")
            writer.append(*waiting.pop())

    return trace


def test_a_transaction_that_begins_when_others_have_another_wal_already_writes_nothing(
    path: Path, writer: Writer
) -> None:
    writer.append(*large("before", 20))
    with closing(SqliteProducer(path)) as producer:
        append(producer, TOPIC, *numbered(1))
        with producer._file.use() as connection:
            connection.set_trace_callback(go_on_without_the_wal(path, writer, "BEGIN"))
        with pytest.raises(LogUnavailable, match="while it was used"):
            append(producer, TOPIC, *numbered(1, start=1))
        append(producer, TOPIC, *numbered(1, start=2))
        writer.append(*large("at last", 20))
    assert len(writer.acknowledged) == 60
    assert set(all_in(path)) == {*writer.acknowledged, b"0", b"2"}


def test_what_is_read_while_others_go_on_with_another_wal_does_not_count(path: Path, writer: Writer) -> None:
    writer.append(*large("before", 20))
    with closing(consumer_of(path)) as consumer:
        consumer.poll(1, 0)
        with consumer._file.use() as connection:
            connection.set_trace_callback(go_on_without_the_wal(path, writer, "SELECT topic"))
        with pytest.raises(LogUnavailable, match="while it was used"):
            consumer.poll(100, 0)
        consumer.rewind()
        assert values(read(consumer, 40)) == writer.acknowledged


def test_a_reader_reads_on_when_the_wal_is_deleted_between_its_records(path: Path, writer: Writer) -> None:
    writer.append(*texts("before", 250))
    with closing(SqliteReader(path, [TOPIC], None)) as reader:
        records = reader.records()
        first = [next(records) for _ in range(50)]
        take_away(path, "wal")
        writer.append(*large("since", 20))
        assert values([*first, *records]) == writer.acknowledged[:250]


def test_an_idle_process_makes_no_new_file_where_one_was_taken_away(path: Path, writer: Writer) -> None:
    writer.append(*texts("before", 5))
    writer.append(*texts("and then", 1))
    path.rename(path.with_name("elsewhere.db"))
    elsewhere = path.with_name("elsewhere.db")
    wait_for(
        lambda: set(in_main_file(elsewhere)) == set(writer.acknowledged), "the records are in the main file"
    )
    assert not path.exists()


def test_a_look_from_outside_does_not_keep_what_is_in_a_deleted_wal_from_being_saved(
    path: Path, writer: Writer
) -> None:
    writer.append(*texts("before", 5))
    take_away(path, "wal")
    with suppress(LogUnavailable):
        try_append(path)
    writer.append(*texts("after", 5))
    writer.kill()
    assert len(writer.acknowledged) > 5
    assert set(all_in(path)) >= set(writer.acknowledged)
