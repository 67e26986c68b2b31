"""Tests that too many bad records stop the consumer also where good ones come between them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from consumers.dead_letters.limit import FailureLimit
from ingest.errors import DeadLetterLimit
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import TOPIC, sample
from tests.consumers.test_refused import DEAD, unreadable
from tests.support.settings import CommandRunner, settings_tree, with_section

# Two bad ones, then a good one: never three in a row.
THIRD_GOOD = [sample(number).to_record() if number % 3 == 2 else unreadable(number) for number in range(24)]


@pytest.fixture
def strict_harness(tmp_path: Path) -> Iterator[ConsumerHarness]:
    """Return a consumer that stops at three in a row, or sixteen of thirty, and takes six at a time."""
    with open_consumer(
        with_section(settings_tree(tmp_path), "consumer", dead_letter_limit=3, max_records=6)
    ) as harness:
        yield harness


def test_more_than_half_of_ten_times_the_limit_is_too_many() -> None:
    run = FailureLimit(10)
    run.count([True, False] * 50)
    with pytest.raises(
        DeadLetterLimit, match=r"^51 of the last 100 records could not .* consumer\.dead_letter_limit"
    ):
        run.count([False])


def test_what_was_long_ago_does_not_count() -> None:
    run = FailureLimit(10)
    for _ in range(10):
        run.count([True, False, False] * 16)
        run.count([True] * 100)
        run.commit()


def test_the_message_tells_how_many_there_were_where_that_is_less() -> None:
    with pytest.raises(DeadLetterLimit, match=r"^16 of the last 23 records"):
        FailureLimit(3).count(value == "." for value in "xx." * 10)


def step_on(harness: ConsumerHarness) -> None:
    """Load batches as the loop does, until it stops."""
    while True:
        harness.loader.step()


def test_at_the_limit_what_was_committed_stays_and_the_rest_is_read_again(
    strict_harness: ConsumerHarness,
) -> None:
    strict_harness.append_records(TOPIC, *THIRD_GOOD)
    for _ in range(2):  # the second time as a consumer that starts over
        with pytest.raises(DeadLetterLimit, match=r"^16 of the last 23 records"):
            step_on(strict_harness)
        strict_harness.loader._start_over()
    (committed,) = (
        entry.committed for entry in strict_harness.consumer.backlog() if entry.partition.topic == TOPIC
    )
    assert 0 < committed < 23
    assert strict_harness.column("select count(*) from booking_events") == [committed // 3]
    assert strict_harness.written(DEAD) == committed - committed // 3


def test_the_consumers_process_ends_with_the_code_that_says_so(tmp_path: Path) -> None:
    tree = with_section(settings_tree(tmp_path), "consumer", dead_letter_limit=3, max_records=6)
    with open_consumer(tree) as harness:
        harness.append_records(TOPIC, *THIRD_GOOD)
    result = CommandRunner(tmp_path, tree).run("consume")
    assert result.code == 4
    assert "16 of the last 23 records could not be read or loaded" in result.err.splitlines()[-1]
