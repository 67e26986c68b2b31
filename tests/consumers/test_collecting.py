"""Tests of when a batch is full: by count, by bytes, by the age of its first record."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from ingest.event import Event
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import sample
from tests.support.polling import PATIENCE
from tests.support.settings import Tree, with_section


def collected(harness: ConsumerHarness, *appended: Event) -> int:
    harness.append(*appended)
    return len(harness.loader._poll(1.0).records)


def received(ago: timedelta) -> datetime:
    return datetime.now(UTC) - ago


def test_a_batch_closes_by_count(tree: Tree) -> None:
    with open_consumer(with_section(tree, "consumer", max_records=150, linger="1h")) as harness:
        assert (
            collected(harness, *(sample(number, received_at=received(timedelta())) for number in range(310)))
            == 150
        )
        assert len(harness.loader._poll(1.0).records) == 150


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
        batch = threads.submit(harness.loader._poll, 1.0)
        harness.append(sample(2, received_at=received(timedelta())))
        harness.append(sample(3, received_at=received(timedelta())))
        assert len(batch.result(PATIENCE).records) == 3


@pytest.mark.parametrize("ahead", [timedelta(minutes=5), timedelta(days=9)])
def test_a_receiver_whose_clock_is_ahead_does_not_hold_up_the_load(tree: Tree, ahead: timedelta) -> None:
    with open_consumer(with_section(tree, "consumer", linger="50ms")) as harness:
        harness.append(sample(1, received_at=received(-ahead)))
        sizes: list[int] = []
        thread = threading.Thread(
            target=lambda: sizes.append(len(harness.loader._poll(1.0).records)), daemon=True
        )
        thread.start()
        thread.join(PATIENCE / 4)
        assert sizes == [1]
