"""What waits in a spool was acknowledged: it is waited for, and not missed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingest.errors import LogUnavailable
from receivers.spool.file import SpoolFile
from tests.reconcile.shop import Shop


@contextmanager
def spooled(shop: Shop, folder: Path) -> Iterator[SpoolFile]:
    """Deliveries of four bookings, in a worker's file; loaded none."""
    changes = shop.live(4)
    spool = SpoolFile(folder / "spool-000.db", shop.rig.settings.topics(), 1 << 30)
    producer, shop.rig.producer = shop.rig.producer, spool
    try:
        shop.append(changes)
        shop.rig.producer = producer
        yield spool
    finally:
        shop.rig.producer = producer
        spool.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """The embedded log stands for a Kafka that is back."""
    with Shop(tmp_path, ["bookeo"], receiver={"spool_dir": f"{tmp_path}/spool"}).open() as opened:
        (tmp_path / "spool").mkdir()
        yield opened


def test_a_run_waits_until_the_spools_of_this_machine_are_empty(tmp_path: Path, shop: Shop) -> None:
    with spooled(shop, tmp_path / "spool") as spool:
        assert spool.waiting() > 0
        drained = threading.Timer(1.0, lambda: spool.drain(shop.rig.producer))
        drained.start()
        found = shop.reconcile()["bookeo"]
        drained.join()
        assert (found.failure, found.counts.missed, found.counts.matched) == (None, 0, 4)


def test_a_spool_that_nobody_drains_fails_the_run_and_is_named(
    tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.waits.STALLED_SECONDS", 0.5)
    with spooled(shop, tmp_path / "spool") as spool:
        found = shop.reconcile()["bookeo"]
        assert isinstance(found.failure, LogUnavailable)
        assert f"{spool.waiting()} deliveries wait in the spool {tmp_path}/spool" in str(found.failure)
        assert "would be counted as missed" in str(found.failure)
        assert "can it reach Kafka?" in str(found.failure)
        assert found.counts.missed == 0
