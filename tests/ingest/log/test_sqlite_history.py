"""An embedded log whose file is restored, replaced or written over while it is used.

Nothing is acknowledged that the log does not have.
"""

import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
import structlog

from ingest.errors import CommitFailed, LogUnavailable
from ingest.log import Partition, PositionChange, Record
from ingest.log.sqlite import SqliteConsumer, SqliteProducer, SqliteReader
from ingest.log.sqlite.reader import try_append
from tests.ingest.log.harness import append, numbered, read, values
from tests.ingest.log.sqlite_files import (
    TOPIC,
    Writer,
    all_in,
    backlog_of,
    checkpoint,
    consumer_of,
    copy,
    large,
    rename_over,
    take_away,
    texts,
)
from tests.support.polling import Deadline


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
