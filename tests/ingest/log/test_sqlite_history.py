"""An embedded log whose files are deleted, restored or replaced while it is used.

Nothing is acknowledged that the log does not have.
"""

import os
import resource
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from ingest.errors import CommitFailed, LogUnavailable
from ingest.log import Partition, PositionChange, Record
from ingest.log.sqlite import SqliteConsumer, SqliteProducer, SqliteReader, backlog
from ingest.log.sqlite.reader import extent, try_append
from tests.ingest.log.harness import append, numbered, read, values
from tests.support.polling import Deadline, wait_for
from tests.support.processes import PythonProcess

TOPIC = "bookings.calendly"
_WRITER = """
import sys, time
from pathlib import Path
import structlog
from ingest.errors import LogUnavailable
from ingest.log import Record
from ingest.log.sqlite import SqliteProducer

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
producer = SqliteProducer(Path(sys.argv[1]))
for line in sys.stdin:
    try:
        producer.append(sys.argv[2], [Record("key", line.strip().encode())]).result(60)
    except LogUnavailable:
        print("no", flush=True)
    else:
        print("yes", flush=True)
"""

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


class Writer:
    """Another process that appends on request, as a worker of a receiver does."""

    def __init__(self, path: Path) -> None:
        self._process = PythonProcess(_WRITER, str(path), TOPIC)
        self.acknowledged: list[bytes] = []

    def append(self, *texts: str) -> None:
        """Note the records that were acknowledged."""
        for text in texts:
            self._process.write_line(text)
            if self._process.read_line() == "yes":
                self.acknowledged.append(text.encode())

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def kill(self) -> None:
        """Kill the process."""
        self._process.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    process = Writer(path)
    yield process
    process.kill()


@pytest.fixture
def other(path: Path) -> Iterator[Writer]:
    process = Writer(path)
    yield process
    process.kill()


def consumer_of(path: Path) -> SqliteConsumer:
    return SqliteConsumer(path, "group", [TOPIC], timedelta(days=1))


def backlog_of(path: Path) -> object:
    return backlog(path, "group")


def all_in(path: Path) -> list[bytes]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT value FROM records ORDER BY topic, offset")]


def in_main_file(path: Path) -> list[bytes]:
    """Return what the main file has without its -wal, and open nothing beside it."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
            return [row[0] for row in connection.execute("SELECT value FROM records")]
    except sqlite3.Error:
        return []


def checkpoint(path: Path, kind: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(f"PRAGMA wal_checkpoint({kind})").fetchone()[0] == 0


def copy(path: Path, copied: Path) -> None:
    """Make a whole copy, as SQLite's backup does."""
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copied)) as target:
        source.backup(target)


def rename_over(copied: Path, path: Path) -> None:
    restored = path.with_name("restored")
    shutil.copy(copied, restored)
    restored.rename(path)


def take_away(path: Path, *kinds: str) -> None:
    for kind in kinds:
        path.with_name(f"{path.name}-{kind}").unlink()


def large(name: str, count: int) -> list[str]:
    return [f"{name}-{number} {'x' * 10_000}" for number in range(count)]


def texts(name: str, count: int) -> list[str]:
    return [f"{name}-{number}" for number in range(count)]


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


@pytest.mark.parametrize("restore", [rename_over, shutil.copy], ids=["by a rename", "by a copy over it"])
def test_a_log_that_is_restored_while_nobody_uses_it_goes_on(
    path: Path, tmp_path: Path, restore: object
) -> None:
    assert callable(restore)
    with closing(SqliteProducer(path)) as producer:
        append(producer, TOPIC, *numbered(5))
        copy(path, tmp_path / "kept")
        append(producer, TOPIC, *numbered(5, start=5))
    with closing(consumer_of(path)) as consumer:
        consumer.commit(read(consumer, 10))
    restore(tmp_path / "kept", path)
    with closing(SqliteProducer(path)) as producer, closing(consumer_of(path)) as consumer:
        append(producer, TOPIC, *numbered(20, start=100))
        assert values(read(consumer, 25))[5:] == [record.value for record in numbered(20, start=100)]


def test_a_log_that_is_restored_under_a_writer_has_all_that_was_acknowledged_since(
    path: Path, tmp_path: Path, writer: Writer
) -> None:
    writer.append(*texts("before", 20))
    copy(path, tmp_path / "kept")
    writer.append(*texts("cut", 20))
    writer.acknowledged.clear()
    rename_over(tmp_path / "kept", path)
    writer.append(*texts("after", 20))
    assert len(writer.acknowledged) == 20
    assert set(all_in(path)) == {text.encode() for text in (*texts("before", 20), *texts("after", 20))}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("committed", [0, 4, 10])
def test_a_consumer_reads_what_a_restored_log_got_below_its_position(
    path: Path, tmp_path: Path, committed: int
) -> None:
    with closing(SqliteProducer(path)) as producer, closing(consumer_of(path)) as consumer:
        append(producer, TOPIC, *numbered(5))
        copy(path, tmp_path / "kept")
        append(producer, TOPIC, *numbered(5, start=5))
        polled = read(consumer, 10)
        consumer.commit(polled[:committed])
        generation = consumer.generation()
        rename_over(tmp_path / "kept", path)
        append(producer, TOPIC, *numbered(15, start=100))
        with pytest.raises(CommitFailed):
            consumer.commit(polled)
        records = read(consumer, 20)
        assert values(records)[5:] == [record.value for record in numbered(15, start=100)]
        assert consumer.generation() != generation
        assert consumer.changes() == [PositionChange(Partition(TOPIC), committed, 0)]


def change_in_place(path: Path, *statements: str) -> None:
    """Change the open file, which then is like an older copy that was written over it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_a_copy_put_over_the_file_is_noticed_by_whoever_appended_more_to_it(path: Path) -> None:
    with closing(SqliteProducer(path)) as producer:
        append(producer, TOPIC, *numbered(10))
        change_in_place(path, "DELETE FROM records WHERE offset >= 4", "UPDATE topics SET next_offset = 4")
        with pytest.raises(LogUnavailable, match="an older copy"):
            append(producer, TOPIC, *numbered(1, start=100))
        append(producer, TOPIC, *numbered(1, start=101))
    assert all_in(path)[4:] == [b"101"]


@pytest.mark.parametrize("committed", [0, 4, 10])
def test_a_copy_put_over_the_file_is_noticed_by_whoever_read_more_of_it(path: Path, committed: int) -> None:
    with closing(SqliteProducer(path)) as producer, closing(consumer_of(path)) as consumer:
        append(producer, TOPIC, *numbered(10))
        polled = read(consumer, 10)
        consumer.commit(polled[:committed])
        commits = f"UPDATE commits SET next_offset = {min(committed, 2)}"
        change_in_place(
            path, "DELETE FROM records WHERE offset >= 4", "UPDATE topics SET next_offset = 4", commits
        )
        with closing(SqliteProducer(path)) as other:
            append(other, TOPIC, *numbered(20, start=100))
        with pytest.raises(CommitFailed):
            consumer.commit(polled)
        records = read(consumer, 24 - min(committed, 2))
        assert [record.value for record in numbered(20, start=100)] == values(records)[-20:]


def assert_refused(path: Path, consumer: SqliteConsumer) -> None:
    """Assert that the log is refused to the consumer that has it open, and to new users."""
    for use in (try_append, consumer_of, backlog_of, lambda at: SqliteReader(at, [TOPIC], None)):
        with pytest.raises(LogUnavailable, match="written over it"):
            use(path)
    with pytest.raises(LogUnavailable, match="written over it"):
        consumer.poll(100, 0)


def read_all(consumer: SqliteConsumer, wanted: set[bytes]) -> set[bytes]:
    """Read until all that is wanted was there."""
    found_values: set[bytes] = set()
    deadline = Deadline("every record is read")
    while not wanted <= found_values:
        deadline.check()
        with suppress(LogUnavailable):
            found_values.update(values(consumer.poll(100, 0.1)))
    return found_values


@pytest.mark.parametrize("appended_after_checkpoint", [0, 5])
@pytest.mark.parametrize("kind", ["PASSIVE", "RESTART", "TRUNCATE"])
def test_nothing_is_acknowledged_into_a_copy_that_is_written_over_the_file_until_its_wal_is_deleted(
    path: Path, tmp_path: Path, writer: Writer, other: Writer, *, kind: str, appended_after_checkpoint: int
) -> None:
    with closing(consumer_of(path)) as consumer:
        writer.append(*large("before", 20))
        copy(path, tmp_path / "kept")
        writer.append(*large("cut", 40))
        other.append(*large("cut by another", 40))
        consumer.commit(read(consumer, 100))
        checkpoint(path, kind)
        writer.append(*large("beside", appended_after_checkpoint))
        writer.acknowledged.clear()
        other.acknowledged.clear()
        shutil.copyfile(tmp_path / "kept", path)
        writer.append(*large("after", 5))
        other.append(*large("after by another", 5))
        if kind != "TRUNCATE" or appended_after_checkpoint:
            assert not writer.acknowledged + other.acknowledged
            assert_refused(path, consumer)
            take_away(path, "wal", "shm")
        writer.append(*large("at last", 5))
        other.append(*large("at last by another", 5))
        acknowledged = {*writer.acknowledged, *other.acknowledged}
        assert len(acknowledged) >= 10
        assert len(read_all(consumer, acknowledged)) == 20 + len(acknowledged)
        assert consumer.changes() == [PositionChange(Partition(TOPIC), 100, 0)]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_checkpoint_that_a_reader_held_up_is_not_taken_for_a_copy(path: Path, writer: Writer) -> None:
    writer.append(*large("before", 5))
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchone()
        writer.append(*large("since", 5))
        checkpoint(path, "PASSIVE")
        writer.append(*large("after", 5))
        assert len(writer.acknowledged) == 15
    checkpoint(path, "PASSIVE")
    writer.append(*large("at last", 5))
    assert len(writer.acknowledged) == 20


def test_a_copy_written_over_the_file_that_its_wal_belongs_to_loses_nothing(
    path: Path, tmp_path: Path, writer: Writer
) -> None:
    writer.append(*large("before", 20))
    copy(path, tmp_path / "kept")
    writer.append(*large("since", 20))
    shutil.copyfile(tmp_path / "kept", path)
    writer.append(*large("after", 20))
    writer.kill()
    assert len(writer.acknowledged) == 60
    assert set(all_in(path)) == set(writer.acknowledged)


def test_a_copy_written_over_the_file_of_killed_processes_beside_their_wal_is_refused_and_stays_whole(
    path: Path, tmp_path: Path, writer: Writer
) -> None:
    writer.append(*large("before", 20))
    copy(path, tmp_path / "kept")
    writer.append(*large("cut", 80))
    checkpoint(path, "RESTART")
    writer.append(*large("beside", 5))
    writer.kill()
    shutil.copyfile(tmp_path / "kept", path)
    with pytest.raises(LogUnavailable):
        SqliteProducer(path)
    assert path.read_bytes() == (tmp_path / "kept").read_bytes()
    take_away(path, "wal", "shm")
    with closing(SqliteProducer(path)) as producer:
        append(producer, TOPIC, *numbered(3))
    assert all_in(path)[-3:] == [record.value for record in numbered(3)]


def test_records_that_a_restored_log_lacks_are_told_though_nothing_was_committed_since(
    path: Path, tmp_path: Path
) -> None:
    with closing(SqliteProducer(path)) as producer, closing(consumer_of(path)) as consumer:
        append(producer, TOPIC, *numbered(5))
        consumer.commit(read(consumer, 5))
        copy(path, tmp_path / "kept")
        append(producer, TOPIC, *numbered(5, start=5))
        consumer.poll(1, 0)
        rename_over(tmp_path / "kept", path)
        with structlog.testing.capture_logs() as lines:
            append(producer, TOPIC, *numbered(1, start=100))
        assert [(line["event"], line["records"]) for line in lines] == [("log.records_gone", 5)]
        assert values(read(consumer, 1)) == [b"100"]
        assert consumer.changes() == [PositionChange(Partition(TOPIC), 5, 5)]


@pytest.mark.parametrize("version", [2**31 - 3, -1])
def test_versions_start_anew_after_the_highest(path: Path, writer: Writer, version: int) -> None:
    writer.append("first")
    change_in_place(path, f"PRAGMA user_version = {version}")
    checkpoint(path, "TRUNCATE")
    for number in range(10):
        writer.append(f"after {number}")
        checkpoint(path, ("PASSIVE", "RESTART")[number % 2])
    assert len(writer.acknowledged) == 11


def test_a_consumer_goes_back_to_a_bookmark_and_says_what_is_no_longer_there(path: Path) -> None:
    with closing(SqliteProducer(path)) as producer, closing(consumer_of(path)) as consumer:
        append(producer, TOPIC, *numbered(10))
        for load in ("a", "b", "c"):
            consumer.commit(read(consumer, 3), load)
        newest, middle, oldest = consumer.bookmarks()[Partition(TOPIC)].marks
        assert [newest.load, middle.load, oldest.load] == ["c", "b", "a"]
        assert consumer.read_again({Partition(TOPIC): middle}) == {}
        assert values(read(consumer, 4)) == [b"6", b"7", b"8", b"9"]
        change_in_place(path, "DELETE FROM records WHERE offset < 5")
        assert consumer.read_again({Partition(TOPIC): None}) == {Partition(TOPIC): 5}
        assert [entry.committed for entry in consumer.backlog()] == [5]
    with closing(consumer_of(path)) as consumer:
        assert values(read(consumer, 5)) == [b"5", b"6", b"7", b"8", b"9"]


def test_a_whole_set_of_files_is_put_in_place_of_another(path: Path, tmp_path: Path, writer: Writer) -> None:
    other = tmp_path / "other" / "log.db"
    with closing(SqliteProducer(other)) as producer:
        append(producer, TOPIC, *numbered(3))
        writer.append(*texts("before", 5))
        for file in other.parent.glob("log.db*"):
            if file.suffix != ".lock":
                file.replace(tmp_path / file.name)
        writer.acknowledged.clear()
        writer.append(*texts("after", 5))
        assert len(writer.acknowledged) == 5
    assert set(writer.acknowledged) <= set(all_in(path))


def test_a_damaged_file_is_told_with_what_to_do(path: Path) -> None:
    with closing(SqliteProducer(path)) as producer:
        append(producer, TOPIC, *(Record("key", bytes(10_000)) for _ in range(50)))
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096 * 20)
    with (
        pytest.raises(LogUnavailable, match="malformed; was it restored"),
        closing(consumer_of(path)) as consumer,
    ):
        consumer.poll(100, 0)
