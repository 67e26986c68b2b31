"""All hours that are not proven are asked for again, since the first one that was ever asked for."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from ingest.warehouse.completeness import HOUR, CompletenessTable, Verdict, hour_of
from ingest.warehouse.duckdb_file import warehouse_lock
from receivers.completeness.asking import ask_again
from receivers.reconcile.checkpoint import Checkpoint
from tests.receivers.reconcile.pipeline import SPAN, Pipeline
from tests.support.polling import PATIENCE


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    with Pipeline(tmp_path, ["bookeo"]).open() as pipeline:
        yield pipeline


def test_what_a_restored_log_and_warehouse_lack_is_asked_for_since_the_first_hour_that_ever_was(
    pipeline: Pipeline,
) -> None:
    pipeline.deliver(pipeline.simulate(4))
    pipeline.reconcile(since=SPAN + timedelta(days=1))
    pipeline.settle()
    settings = pipeline.harness.settings
    (account,) = settings.build_accounts().values()
    table = CompletenessTable(settings)
    first = table.first_stored("bookeo", "bookeo")
    assert first
    checkpoint = Checkpoint(Path(settings.reconcile.state_dir), "bookeo")
    assert checkpoint.asked_since() == first

    # The backup is from before the first verdicts.
    file, dataset = settings.warehouse.duckdb_file, settings.warehouse.dataset
    with warehouse_lock(settings.warehouse, PATIENCE), closing(duckdb.connect(str(file))) as connection:
        connection.execute(f"DELETE FROM {dataset}.completeness WHERE hour < ?", [first + 30 * HOUR])
    assert table.first_stored("bookeo", "bookeo") != first
    (report, *_) = ask_again(settings, pipeline.reconciler(), account, until=datetime.now(UTC) - 2 * HOUR)
    assert report.since == first
    pipeline.settle()
    verdicts = table.verdicts("bookeo", "bookeo")
    assert {verdicts[first + number * HOUR].verdict for number in range(30)} == {Verdict.COMPLETE}
    assert ask_again(settings, pipeline.reconciler(), account, until=datetime.now(UTC) - 2 * HOUR) == []


def test_the_first_hour_that_was_asked_for_is_kept_and_only_an_earlier_one_replaces_it(
    tmp_path: Path,
) -> None:
    checkpoint = Checkpoint(tmp_path, "sales")
    assert checkpoint.asked_since() is None
    noon = hour_of(datetime(2026, 6, 1, 12, tzinfo=UTC))
    for asked, earliest in ((noon, noon), (noon + HOUR, noon), (noon - HOUR, noon - HOUR)):
        checkpoint.note_asked(asked)
        assert Checkpoint(tmp_path, "sales").asked_since() == earliest
    Checkpoint(tmp_path, "sales", dry_run=True).note_asked(noon - 9 * HOUR)
    assert checkpoint.asked_since() == noon - HOUR
