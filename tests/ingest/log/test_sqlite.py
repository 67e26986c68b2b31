"""The embedded log: crashes in the middle of a write, several processes, and retention."""

import shutil
import sqlite3
import stat
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path

import pytest

from ingest.errors import CommitFailed, LogUnavailable
from ingest.log import Record
from ingest.log.sqlite import SqliteConsumer, SqliteProducer, backlog
from ingest.log.sqlite import consumer as consumer_module
from ingest.log.sqlite.file import LogFile
from tests.ingest.log.harness import SqliteFixture, append, numbered, read, values
from tests.support.polling import PATIENCE
from tests.support.processes import PythonProcess

_WRITER = """
import sys
from pathlib import Path
from ingest.log import Record
from ingest.log.sqlite import SqliteProducer

path, topic, name, count = sys.argv[1:]
producer = SqliteProducer(Path(path))
for number in range(int(count)):
    records = [Record(name, f"{name}/{number}/{part}".encode()) for part in range(10)]
    producer.append(topic, records).result(60)
    print(number, flush=True)
producer.close()
"""


_OPENER = """
import sys
from pathlib import Path
from ingest.log.sqlite import SqliteProducer

for line in sys.stdin:
    SqliteProducer(Path(line.strip())).close()
    print("opened", flush=True)
"""


# It has the locks of a process that recovers the log, whose -shm is not valid until then.
_RECOVERER = """
import fcntl
import sys

with open(sys.argv[1], "r+b") as shm:
    fcntl.lockf(shm, fcntl.LOCK_EX, 3, 120)
    shm.write(b"not valid")
    shm.flush()
    print("recovering", flush=True)
    sys.stdin.readline()
"""


def start_writer(log: SqliteFixture, name: str, count: int) -> PythonProcess:
    """Start another process that appends, and prints a line for each durable append."""
    return PythonProcess(_WRITER, str(log.path), log.topic, name, str(count))


def prune_all(consumer: SqliteConsumer) -> None:
    consumer.prune(time.time() + 1)


def sqlite_consumer(log: SqliteFixture) -> SqliteConsumer:
    consumer = log.consumer()
    assert isinstance(consumer, SqliteConsumer)
    return consumer


def kill_writer(log: SqliteFixture, name: str) -> int:
    """Kill the process at work, and return how many of its appends were durable."""
    acknowledged = 0
    with start_writer(log, name, 1_000_000) as writer:
        while writer.read_line():
            acknowledged += 1
            if acknowledged == 100:
                writer.kill()
    return acknowledged


def test_a_killed_process_loses_nothing_that_was_acknowledged(sqlite_log: SqliteFixture) -> None:
    acknowledged = {f"writer-{number}": kill_writer(sqlite_log, f"writer-{number}") for number in range(3)}
    written = sum(entry.next for entry in sqlite_log.backlog())
    found_values = values(read(sqlite_log.consumer(), written))
    for name, count in acknowledged.items():
        values_of_name = [value.decode() for value in found_values if value.startswith(f"{name}/".encode())]
        assert count >= 100
        assert len(values_of_name) in (
            10 * count,
            10 * (count + 1),
        )  # the append it was killed in is there as a whole, or not at all
        assert values_of_name == [
            f"{name}/{number}/{part}" for number in range(len(values_of_name) // 10) for part in range(10)
        ]


def test_several_processes_may_open_a_new_log_at_the_same_moment(tmp_path: Path) -> None:
    answers = set()
    with ExitStack() as running:
        openers = [running.enter_context(PythonProcess(_OPENER)) for _ in range(4)]
        for number in range(30):
            for opener in openers:
                opener.write_line(f"{tmp_path}/log-{number}.db")
            for opener in openers:
                answers.add(opener.read_line())
    assert answers == {"opened"}


def test_several_processes_append_at_once(sqlite_log: SqliteFixture) -> None:
    writers = [start_writer(sqlite_log, f"writer-{number}", 50) for number in range(4)]
    for writer in writers:
        with writer:
            assert writer.finish().count("\n") == 50
    by_writer: dict[str, list[str]] = defaultdict(list)
    records = read(sqlite_log.consumer(), 2000)
    for stored in records:
        by_writer[stored.record.key].append(stored.record.value.decode())
    assert by_writer == {
        f"writer-{writer}": [f"writer-{writer}/{number}/{part}" for number in range(50) for part in range(10)]
        for writer in range(4)
    }
    assert [stored.offset for stored in records] == list(range(2000))


def test_retention_never_deletes_what_is_not_committed(sqlite_log: SqliteFixture) -> None:
    append(sqlite_log.producer(), sqlite_log.topic, *numbered(5))
    consumer = sqlite_consumer(sqlite_log)
    prune_all(consumer)
    consumer.commit(read(consumer, 5)[:3])
    prune_all(consumer)
    consumer.rewind()
    assert values(read(consumer, 2)) == [b"3", b"4"]


def test_retention_waits_for_every_group(sqlite_log: SqliteFixture) -> None:
    append(sqlite_log.producer(), sqlite_log.topic, *numbered(5))
    consumer = sqlite_consumer(sqlite_log)
    with closing(SqliteConsumer(sqlite_log.path, "slower", [sqlite_log.topic], timedelta(days=14))) as slower:
        slower.commit(read(slower, 1))
        consumer.commit(read(consumer, 5))
        prune_all(consumer)
        slower.rewind()
        assert values(read(slower, 4)) == [b"1", b"2", b"3", b"4"]


def test_retention_keeps_what_is_too_young(sqlite_log: SqliteFixture) -> None:
    append(sqlite_log.producer(), sqlite_log.topic, *numbered(5))
    consumer = sqlite_consumer(sqlite_log)
    consumer.commit(read(consumer, 5))
    consumer.prune(time.time() - 3600)
    assert count_of_rows(sqlite_log.path) == 5
    prune_all(consumer)
    assert count_of_rows(sqlite_log.path) == 0


YEAR = 365 * 86400.0


def aged(log: SqliteFixture, *ages: float) -> None:
    """Append records that seem so many seconds old; a negative age is in the future."""
    append(log.producer(), log.topic, *numbered(len(ages)))
    with closing(sqlite3.connect(log.path)) as connection, connection:
        now = time.time()
        connection.executemany(
            "UPDATE records SET appended_at = ? WHERE offset = ?",
            [(now - age, offset) for offset, age in enumerate(ages)],
        )


def remaining(log: SqliteFixture) -> list[int]:
    with closing(sqlite3.connect(log.path)) as connection:
        return [offset for (offset,) in connection.execute("SELECT offset FROM records ORDER BY offset")]


@pytest.mark.parametrize(
    ("ages", "expected"),
    [
        ((9000, -YEAR, 8000, 7000, 10), [4]),
        ((-YEAR, 9000, 8000, 10), [3]),
        ((9000, -YEAR, -YEAR, 10), [1, 2, 3]),  # how old they are shows when the one behind them is old
        ((9000, 10, -YEAR, 10), [1, 2, 3]),
        ((9000, 10, 9000, 10), [1, 2, 3]),  # one of a clock that was behind takes nothing with it
    ],
)
def test_a_record_of_a_clock_that_was_ahead_does_not_stop_retention(
    sqlite_log: SqliteFixture, ages: tuple[float, ...], expected: list[int]
) -> None:
    aged(sqlite_log, *ages)
    consumer = sqlite_consumer(sqlite_log)
    consumer.commit(read(consumer, len(ages)))
    consumer.prune(time.time() - 3600)
    assert remaining(sqlite_log) == expected


@pytest.mark.parametrize("ahead", [3600 * 24 * 20, YEAR])
def test_a_consumer_whose_clock_is_ahead_deletes_nothing_that_is_young(
    sqlite_log: SqliteFixture, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    monkeypatch.setattr(consumer_module, "_PRUNE_EVERY_SECONDS", 0.0)
    aged(sqlite_log, 15 * 86400, 86400, 10)
    right = time.time
    with closing(
        SqliteConsumer(sqlite_log.path, sqlite_log.group, [sqlite_log.topic], timedelta(days=14))
    ) as consumer:
        records = read(consumer, 3)
        monkeypatch.setattr("ingest.log.sqlite.consumer.time.time", lambda: right() + ahead)
        consumer.commit(records)
    assert remaining(sqlite_log) == [1, 2]


def test_the_age_of_the_backlog_is_that_which_the_order_of_the_log_shows(sqlite_log: SqliteFixture) -> None:
    aged(sqlite_log, -YEAR, 50, 10)
    [entry] = backlog(sqlite_log.path, sqlite_log.group)
    assert entry.waiting_since is not None
    assert entry.waiting_since.timestamp() < time.time() - 40


def test_retention_never_lets_an_offset_be_used_again(sqlite_log: SqliteFixture) -> None:
    producer, consumer = sqlite_log.producer(), sqlite_consumer(sqlite_log)
    append(producer, sqlite_log.topic, *numbered(5))
    consumer.commit(read(consumer, 5))
    prune_all(consumer)
    append(producer, sqlite_log.topic, Record("booking-1", b"after"))
    [stored] = read(consumer, 1)
    assert (stored.record.value, stored.offset) == (b"after", 5)


def test_a_commit_prunes_by_itself_when_it_is_time(
    sqlite_log: SqliteFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "_PRUNE_EVERY_SECONDS", 0.0)
    append(sqlite_log.producer(), sqlite_log.topic, *numbered(5))
    with closing(
        SqliteConsumer(sqlite_log.path, sqlite_log.group, [sqlite_log.topic], timedelta(seconds=-1))
    ) as consumer:
        consumer.commit(read(consumer, 5))
    assert count_of_rows(sqlite_log.path) == 0


@pytest.mark.parametrize("pages", [1024, 4096])
def test_a_file_of_an_earlier_release_keeps_its_pages_and_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    def append_to(path: Path, value: bytes) -> int:
        with closing(SqliteProducer(path)) as producer:
            producer.append("topic", [Record("key", value)]).result(PATIENCE)
        with closing(sqlite3.connect(path)) as connection:
            size: int = connection.execute("PRAGMA page_size").fetchone()[0]
        return size

    path = tmp_path / "log.db"
    with monkeypatch.context() as earlier:
        earlier.setattr("ingest.log.sqlite.file._PAGE_BYTES", pages)
        assert append_to(path, b"1") == pages
    assert append_to(path, b"2") == pages
    assert append_to(tmp_path / "new.db", b"1") > pages
    with closing(SqliteConsumer(path, "group", ["topic"], timedelta(days=1))) as consumer:
        assert values(consumer.poll(10, 0)) == [b"1", b"2"]


def test_appends_that_wait_together_keep_their_order_in_each_topic(tmp_path: Path) -> None:
    path, topics = tmp_path / "log.db", ["a", "b"]
    with closing(LogFile(path)) as other, closing(SqliteProducer(path)) as producer:
        with other.transaction():
            appends = [
                producer.append(topic, [Record("key", b"%d/%d" % (number, part)) for part in range(3)])
                for number in range(10)
                for topic in topics
            ]
        for append in appends:
            append.result(PATIENCE)
    with closing(SqliteConsumer(path, "group", topics, timedelta(days=1))) as consumer:
        stored = consumer.poll(100, 0)
    for topic in topics:
        of_topic = [record for record in stored if record.partition.topic == topic]
        assert [record.offset for record in of_topic] == [*range(30)]
        assert values(of_topic) == [b"%d/%d" % (number, part) for number in range(10) for part in range(3)]


def test_a_transaction_begins_once_another_one_ends_and_is_given_up_when_that_takes_too_long(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.db"
    impatient, patient = LogFile(path, wait=0.05), LogFile(path)

    def write_nothing(file: LogFile) -> None:
        with file.transaction():
            pass

    with closing(impatient), closing(patient), ThreadPoolExecutor(1) as pool:
        with patient.transaction(), pytest.raises(sqlite3.OperationalError, match="locked"):
            write_nothing(impatient)
        with impatient.transaction():
            writing = pool.submit(write_nothing, patient)
            assert not wait([writing], 0.1).done
        writing.result(PATIENCE)
        write_nothing(impatient)


def test_a_transaction_waits_for_the_process_that_recovers_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with (
        closing(LogFile(path)) as file,
        file.use() as connection,
        PythonProcess(_RECOVERER, f"{path}-shm") as process,
        ThreadPoolExecutor(1) as pool,
    ):
        assert process.read_line() == "recovering"
        beginning = pool.submit(file._begin, connection)
        assert not wait([beginning], 0.1).done
        process.kill()
        beginning.result(PATIENCE)
        connection.execute("ROLLBACK")


def test_much_is_pruned_in_parts_so_that_writers_get_in_between(
    sqlite_log: SqliteFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "_PRUNE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(consumer_module, "_PRUNED_AT_ONCE", 2)
    append(sqlite_log.producer(), sqlite_log.topic, *numbered(7))
    with closing(
        SqliteConsumer(sqlite_log.path, sqlite_log.group, [sqlite_log.topic], timedelta(seconds=-1))
    ) as consumer:
        records = read(consumer, 7)
        remaining = []
        for batch in (records[:3], records[3:5], records[5:], records):
            consumer.commit(batch)
            remaining.append(count_of_rows(sqlite_log.path))
    assert remaining == [5, 3, 1, 0]


def test_only_its_owner_can_read_the_file(sqlite_log: SqliteFixture) -> None:
    append(sqlite_log.producer(), sqlite_log.topic, *numbered(1))
    sqlite_log.consumer()
    files = [*sqlite_log.path.parent.glob(f"{sqlite_log.path.name}*")]
    assert {f"{sqlite_log.path.name}{suffix}" for suffix in ("", "-wal", "-shm")} < {
        file.name for file in files
    }
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    with closing(SqliteProducer(tmp_path / "data" / "log.db")):
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_a_second_consumer_of_a_group_is_refused_and_told_why(sqlite_log: SqliteFixture) -> None:
    first = sqlite_log.consumer()
    with pytest.raises(LogUnavailable, match=f"another consumer of group '{sqlite_log.group}'"):
        SqliteConsumer(
            sqlite_log.path, sqlite_log.group, [sqlite_log.topic], timedelta(days=14), patience=0.1
        )
    append(sqlite_log.producer(), sqlite_log.topic, *numbered(1))
    first.commit(read(first, 1))


def test_whoever_opens_the_log_by_a_link_is_one_of_its_users(tmp_path: Path) -> None:
    path, link = tmp_path / "log.db", tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)
    with ExitStack() as stack:
        producer = stack.enter_context(closing(SqliteProducer(path)))
        by_link = stack.enter_context(closing(SqliteProducer(link)))
        for number, some_producer in enumerate([producer, by_link, producer]):
            some_producer.append("topic", numbered(1)).result(PATIENCE)
            assert [entry.lag for entry in backlog(link, "group", ["topic"])] == [number + 1]
        stack.enter_context(closing(SqliteConsumer(link, "group", ["topic"], timedelta(days=14))))
        with pytest.raises(LogUnavailable, match="group"):
            SqliteConsumer(path, "group", ["topic"], timedelta(days=14), patience=0.1)
    assert [file.name for file in link.parent.iterdir()] == ["link.db"]


def test_a_link_that_leads_elsewhere_is_followed(tmp_path: Path) -> None:
    link = tmp_path / "log.db"
    for name in ("first", "second"):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / f"{name}.db")
        with closing(SqliteProducer(link)) as producer:
            producer.append("topic", numbered(1)).result(PATIENCE)
            assert [entry.lag for entry in backlog(link, "group", ["topic"])] == [1]
    with closing(SqliteProducer(link)) as producer:
        producer.append("topic", numbered(1)).result(PATIENCE)
        link.unlink()
        link.symlink_to(tmp_path / "first.db")
        producer.append("topic", numbered(1)).result(PATIENCE)
        assert [entry.lag for entry in backlog(link, "group", ["topic"])] == [2]


def test_consumers_of_two_groups_each_read_everything(sqlite_log: SqliteFixture) -> None:
    append(sqlite_log.producer(), sqlite_log.topic, *numbered(3))
    with closing(SqliteConsumer(sqlite_log.path, "another", [sqlite_log.topic], timedelta(days=14))) as other:
        consumer = sqlite_log.consumer()
        consumer.commit(read(consumer, 3))
        assert values(read(other, 3)) == [b"0", b"1", b"2"]


def test_a_small_limit_starves_no_topic(sqlite_log: SqliteFixture) -> None:
    producer, consumer = sqlite_log.producer(), sqlite_log.consumer()
    append(producer, sqlite_log.topic, *numbered(100))
    append(producer, sqlite_log.other_topic, *numbered(2))
    assert {stored.partition.topic for stored in read(consumer, 4)} == {
        sqlite_log.topic,
        sqlite_log.other_topic,
    }


def test_a_record_that_cannot_be_stored_fails_and_the_next_one_does_not(sqlite_log: SqliteFixture) -> None:
    producer = sqlite_log.producer()
    broken = producer.append(sqlite_log.topic, [Record("half a character: \ud83c", b"")])
    assert isinstance(broken.exception(PATIENCE), LogUnavailable)
    append(producer, sqlite_log.topic, Record("booking-1", b"fine"))
    assert values(read(sqlite_log.consumer(), 1)) == [b"fine"]


def test_a_log_that_broke_and_was_repaired_takes_records_again(sqlite_log: SqliteFixture) -> None:
    producer = sqlite_log.producer()
    with closing(sqlite3.connect(sqlite_log.path)) as connection:
        connection.execute("ALTER TABLE records RENAME TO elsewhere")
        failed = producer.append(sqlite_log.topic, numbered(1))
        assert isinstance(failed.exception(PATIENCE), LogUnavailable)
        connection.execute("ALTER TABLE elsewhere RENAME TO records")
    append(producer, sqlite_log.topic, Record("booking-1", b"after"))
    [stored] = read(sqlite_log.consumer(), 1)
    assert (stored.record.value, stored.offset) == (b"after", 0)


def test_a_consumer_of_a_broken_log_says_so(sqlite_log: SqliteFixture) -> None:
    consumer = sqlite_log.consumer()
    sqlite_log.unavailable_producer()
    with pytest.raises(LogUnavailable, match=str(sqlite_log.path)):
        consumer.poll(1, 0)


def test_after_a_rewind_that_failed_nothing_is_passed_over(sqlite_log: SqliteFixture) -> None:
    append(sqlite_log.producer(), sqlite_log.topic, *numbered(3))
    consumer = sqlite_consumer(sqlite_log)
    polled = read(consumer, 2)
    with closing(sqlite3.connect(sqlite_log.path)) as connection:
        connection.execute("ALTER TABLE commits RENAME TO elsewhere")
        with pytest.raises(LogUnavailable):
            consumer.rewind()
        connection.execute("ALTER TABLE elsewhere RENAME TO commits")
    with pytest.raises(CommitFailed):
        consumer.commit(polled)
    assert values(read(consumer, 3)) == [b"0", b"1", b"2"]


def test_a_file_that_is_no_log_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.write_text("this is not a database, though long enough to be taken for one at first sight" * 20)
    with pytest.raises(LogUnavailable, match="not a database"):
        SqliteProducer(path)
    with pytest.raises(LogUnavailable, match="not a database"):
        SqliteConsumer(path, "group", ["topic"], timedelta(days=14))


@pytest.mark.parametrize("name", ["a#b.db", "a?b.db", "a%25b.db", "ä b.db"])
def test_any_name_of_a_file_is_that_files(tmp_path: Path, name: str) -> None:
    with closing(SqliteProducer(tmp_path / name)) as producer:
        append(producer, "topic", *numbered(3))
        assert [entry.lag for entry in backlog(tmp_path / name, "group")] == [3]


def test_the_backlog_of_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert backlog(tmp_path / "log.db", "group", ["topic"]) == []
    assert not (tmp_path / "log.db").exists()


def test_who_only_reads_a_copy_of_a_log_makes_no_files_that_its_users_need(tmp_path: Path) -> None:
    path, copied = tmp_path / "log.db", tmp_path / "elsewhere" / "log.db"
    with closing(SqliteProducer(path)) as producer:
        append(producer, "topic", *numbered(3))
    copied.parent.mkdir()
    shutil.copy(path, copied)
    assert [entry.lag for entry in backlog(copied, "group")] == [3]
    assert {file.name for file in copied.parent.iterdir()} <= {"log.db", "log.db-wal", "log.db-shm"}


def count_of_rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM records").fetchone()[0])


@pytest.mark.parametrize(
    "finds_it", [SqliteConsumer.backlog, SqliteConsumer.shrink], ids=["backlog", "shrink"]
)
def test_whoever_finds_that_another_file_is_there_it_is_read_from_its_beginning(
    tmp_path: Path, finds_it: Callable[[SqliteConsumer], object]
) -> None:
    path = tmp_path / "log.db"
    with (
        closing(SqliteProducer(path)) as producer,
        closing(SqliteConsumer(path, "group", ["topic"], timedelta(days=1))) as consumer,
    ):
        producer.append("topic", [Record("key", b"before")] * 3).result(PATIENCE)
        consumer.commit(before := consumer.poll(10, PATIENCE))
        for file in tmp_path.glob("log.db*"):
            if not file.name.endswith(".lock"):
                file.unlink()
        producer.append("topic", [Record("key", b"after")]).result(PATIENCE)
        finds_it(consumer)
        with pytest.raises(CommitFailed):
            consumer.commit(before)
        assert [stored.record.value for stored in consumer.poll(10, PATIENCE)] == [b"after"]


def test_a_file_that_was_away_and_comes_back_is_written_to_again(tmp_path: Path) -> None:
    path, moved_path = tmp_path / "log.db", tmp_path / "kept.db"
    with closing(SqliteProducer(path)) as producer:
        producer.append("topic", [Record("key", b"before")]).result(PATIENCE)
        path.rename(moved_path)
        path.mkdir()
        with pytest.raises(LogUnavailable):
            producer.append("topic", [Record("key", b"lost")]).result(PATIENCE)
        path.rmdir()
        moved_path.rename(path)
        producer.append("topic", [Record("key", b"after")]).result(PATIENCE)
    assert [entry.next for entry in backlog(path, "group", ["topic"])] == [2]


def test_a_file_that_another_one_replaced_is_neither_written_to_nor_committed_to(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with (
        closing(SqliteProducer(path)) as producer,
        closing(SqliteConsumer(path, "group", ["topic"], timedelta(days=1))) as consumer,
    ):
        producer.append("topic", [Record("key", b"before")]).result(PATIENCE)
        before = consumer.poll(10, PATIENCE)
        generation = consumer.generation()
        for file in tmp_path.glob("log.db*"):
            if not file.name.endswith(".lock"):
                file.unlink()
        producer.append("topic", [Record("key", b"after")]).result(PATIENCE)
        with pytest.raises(CommitFailed):
            consumer.commit(before)
        assert [stored.record.value for stored in consumer.poll(10, PATIENCE)] == [b"after"]
        assert consumer.generation() != generation
    assert [entry.next for entry in backlog(path, "group", ["topic"])] == [1]
