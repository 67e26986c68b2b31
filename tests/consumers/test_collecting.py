"""Tests of when a batch is full: by count, by bytes, by the age of its first record."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest.errors import WarehouseUnavailable
from ingest.event import Event
from ingest.warehouse.query import query
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import TOPIC, sample
from tests.support.polling import PATIENCE, wait_for
from tests.support.settings import CommandRunner, Tree, with_section


def collected(harness: ConsumerHarness, *appended: Event) -> int:
    harness.append(*appended)
    return len(harness.loader._collect().records)


def received(ago: timedelta) -> datetime:
    return datetime.now(UTC) - ago


def test_a_batch_closes_by_count(tree: Tree) -> None:
    with open_consumer(with_section(tree, "consumer", max_records=150, linger="1h")) as harness:
        assert (
            collected(harness, *(sample(number, received_at=received(timedelta())) for number in range(310)))
            == 150
        )
        assert len(harness.loader._collect().records) == 150


def test_a_batch_closes_by_bytes_also_when_many_records_wait(tree: Tree) -> None:
    size = sample(100).to_record().size
    with open_consumer(
        with_section(tree, "consumer", max_records=5000, max_bytes=220 * size, linger="1h")
    ) as harness:
        count = collected(
            harness, *(sample(number, received_at=received(timedelta())) for number in range(100, 1000))
        )
    assert 218 <= count <= 221  # sizes differ by the digits of their numbers


def test_a_batch_of_records_that_waited_long_takes_all_that_wait_and_does_not_linger(tree: Tree) -> None:
    with open_consumer(with_section(tree, "consumer", linger="1h")) as harness:
        started = time.monotonic()
        assert (
            collected(
                harness, *(sample(number, received_at=received(timedelta(hours=2))) for number in range(310))
            )
            == 310
        )
        assert time.monotonic() - started < PATIENCE


def test_a_batch_lingers_for_what_comes_soon_after_its_first_record(tree: Tree) -> None:
    with (
        open_consumer(with_section(tree, "consumer", max_records=3, linger="1h")) as harness,
        ThreadPoolExecutor(1) as threads,
    ):
        harness.append(sample(1, received_at=received(timedelta())))
        batch = threads.submit(harness.loader._collect)
        harness.append(sample(2, received_at=received(timedelta())))
        harness.append(sample(3, received_at=received(timedelta())))
        assert len(batch.result(PATIENCE).records) == 3


@pytest.mark.parametrize("ahead", [timedelta(minutes=5), timedelta(days=9)])
def test_a_receiver_whose_clock_is_ahead_does_not_hold_up_the_load(tree: Tree, ahead: timedelta) -> None:
    with open_consumer(with_section(tree, "consumer", linger="50ms")) as harness:
        harness.append(sample(1, received_at=received(-ahead)))
        sizes: list[int] = []
        thread = threading.Thread(
            target=lambda: sizes.append(len(harness.loader._collect().records)), daemon=True
        )
        thread.start()
        thread.join(PATIENCE / 4)
        assert sizes == [1]


def test_after_a_load_a_batch_of_old_records_waits_too_unless_it_is_full(tree: Tree) -> None:
    with (
        open_consumer(with_section(tree, "consumer", max_records=2, linger="1h")) as harness,
        ThreadPoolExecutor(1) as threads,
    ):
        harness.load(sample(1, received_at=received(timedelta(hours=2))))
        harness.append(sample(2, received_at=received(timedelta(hours=2))))
        batch = threads.submit(harness.loader._collect)
        harness.append(sample(3, received_at=received(timedelta(hours=2))))
        assert len(batch.result(PATIENCE).records) == 2


def test_a_batch_ends_when_partitions_may_have_moved(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    generations = itertools.count()
    with open_consumer(with_section(tree, "consumer", linger="1h")) as harness:
        monkeypatch.setattr(harness.consumer, "generation", lambda: next(generations))
        assert collected(harness, sample(1, received_at=received(timedelta()))) == 1


def test_a_load_is_committed_before_the_next_batch_is_due(tree: Tree) -> None:
    with (
        open_consumer(with_section(tree, "consumer", max_records=20, linger="1h")) as harness,
        ThreadPoolExecutor(1) as threads,
    ):
        harness.append(*(sample(number, received_at=received(timedelta())) for number in range(27)))
        harness.loader._prepare()
        assert threads.submit(harness.loader.step).result(PATIENCE) == 20
        assert harness.lag() == 7
        harness.append(*(sample(number, received_at=received(timedelta())) for number in range(27, 40)))
        assert threads.submit(harness.loader.step).result(PATIENCE) == 20
        assert harness.lag() == 0
        assert harness.column("select count(*) from booking_events") == [40]


def test_sigterm_ends_a_batch_at_once_and_loads_it(tmp_path: Path, tree: Tree) -> None:
    runner = CommandRunner(tmp_path, with_section(tree, "consumer", linger="1h"))
    with closing(runner.settings.build_log().producer()) as producer:
        producer.append(TOPIC, [sample(1, received_at=received(timedelta())).to_record()]).result(PATIENCE)

    def events() -> int | None:
        try:
            return int(query(runner.settings, "select count(*) from booking_events").rows[0][0])
        except WarehouseUnavailable:  # also before the tables are there
            return None

    with runner.consuming() as process:
        wait_for(lambda: events() is not None, "the tables are there, so the record is polled next")
        assert events() == 0
        assert process.stop() == 0
    assert events() == 1
    assert runner.lag() == 0
