"""What waits in a spool was acknowledged: it is waited for, and not missed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingest.errors import LogUnavailable
from receivers.spool.file import SpoolFile
from tests.receivers.reconcile.pipeline import Pipeline


@contextmanager
def spooled(pipeline: Pipeline, folder: Path) -> Iterator[SpoolFile]:
    """Yield a worker's spool file with the deliveries of four bookings."""
    changes = pipeline.simulate(4)
    spool = SpoolFile(folder / "spool-000.db", pipeline.rig.settings.topics(), 1 << 30)
    producer, pipeline.rig.producer = pipeline.rig.producer, spool
    try:
        pipeline.append(changes)
        pipeline.rig.producer = producer
        yield spool
    finally:
        pipeline.rig.producer = producer
        spool.close()


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    """Yield a pipeline whose embedded log stands for a Kafka that is back."""
    with Pipeline(tmp_path, ["bookeo"], receiver={"spool_dir": f"{tmp_path}/spool"}).open() as opened:
        (tmp_path / "spool").mkdir()
        yield opened


def test_a_run_waits_until_the_spools_of_this_machine_are_empty(tmp_path: Path, pipeline: Pipeline) -> None:
    with spooled(pipeline, tmp_path / "spool") as spool:
        assert spool.record_count() > 0
        drained = threading.Timer(1.0, lambda: spool.drain(pipeline.rig.producer))
        drained.start()
        found = pipeline.reconcile()["bookeo"]
        drained.join()
        assert (found.failure, found.counts.missed, found.counts.matched) == (None, 0, 4)


def test_a_spool_that_nobody_drains_fails_the_run_and_is_named(
    tmp_path: Path, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.waits.STALLED_SECONDS", 0.5)
    with spooled(pipeline, tmp_path / "spool") as spool:
        found = pipeline.reconcile()["bookeo"]
        assert isinstance(found.failure, LogUnavailable)
        assert f"{spool.record_count()} deliveries wait in the spool {tmp_path}/spool" in str(found.failure)
        assert "would be counted as missed" in str(found.failure)
        assert "can it reach Kafka?" in str(found.failure)
        assert found.counts.missed == 0
