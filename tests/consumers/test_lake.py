"""Tests of a lake of Delta tables in a local folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from consumers.warehouse.rights import check_warehouse
from ingest.readiness import State
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import sample
from tests.support.settings import Tree, settings_tree

pytest.importorskip("deltalake", reason="the extra for lakes is not installed")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    warehouse = {
        "destination": "filesystem",
        "credentials": f"{tmp_path}/lake",
        "work_dir": f"{tmp_path}/dlt",
    }
    return settings_tree(tmp_path) | {"warehouse": warehouse}


@pytest.fixture
def harness(tree: Tree) -> Iterator[ConsumerHarness]:
    with open_consumer(tree) as harness:
        yield harness


def test_each_booking_has_one_row_and_each_event_too(harness: ConsumerHarness) -> None:
    harness.load(sample(1), sample(2, "B2"))
    harness.load(sample(3, at=5), sample(1))
    harness.load(sample(4, at=2))
    assert harness.rows("select booking_id, last_event_id from bookings order by booking_id") == [
        {"booking_id": "B1", "last_event_id": "E3"},
        {"booking_id": "B2", "last_event_id": "E2"},
    ]
    assert harness.column("select id from booking_events order by id") == ["E1", "E2", "E3", "E4"]
    assert harness.column("select data->>'$.data.subject' from booking_events where id = 'E3'") == [
        "told by E3"
    ]


def test_check_tries_it_in_a_scratch_dataset_which_it_removes(
    harness: ConsumerHarness, tmp_path: Path
) -> None:
    harness.load(sample(1))
    [finding, *_] = check_warehouse(harness.settings)
    assert finding.state is State.OK, finding
    assert [folder.name for folder in (tmp_path / "lake").iterdir()] == ["ingest"]
