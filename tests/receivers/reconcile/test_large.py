"""Reconciliation holds a bounded number of bytes, however large bookings are, and finds all of them."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from ingest.event import Event
from ingest.log import Producer
from ingest.settings import Settings
from receivers.reconcile import repairs, sweep
from receivers.reconcile.sweep import Sweep
from tests.receivers.reconcile.pipeline import Pipeline

_FEW_BYTES = 4096  # a booking of a simulated vendor has more than a fifth of that


@pytest.mark.parametrize("account", ["calendly", "bookeo"])
def test_blocks_and_repairs_are_bounded_by_bytes(
    tmp_path: Path, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_BLOCK_BYTES", _FEW_BYTES)
    monkeypatch.setattr(repairs, "_MOST_BYTES", _FEW_BYTES)
    repaired, appended = [], []
    repair, append = Sweep._repair, repairs.append_events

    def noted_repair(self: Sweep, observations: Sequence[sweep._Observation]) -> set[str]:
        repaired.append([sweep._json_bytes(observation.record) for observation in observations])
        return repair(self, observations)

    def noted_append(settings: Settings, producer: Producer, topic: str, events: Sequence[Event]) -> None:
        appended.append([len(event.data) for event in events])
        append(settings, producer, topic, events)

    monkeypatch.setattr(Sweep, "_repair", noted_repair)
    monkeypatch.setattr(repairs, "append_events", noted_append)
    with Pipeline(tmp_path, [account]).open() as pipeline:
        pipeline.simulate(30)
        report = pipeline.reconcile()[account]
        assert report.failure is None
        assert report.counts.repaired == report.counts.missed > 0
        assert pipeline.differences() == []
    assert len(repaired) > 1
    assert len(appended) > 1
    for sizes in (*repaired, *appended):
        assert sum(sizes[:-1]) < _FEW_BYTES + max(sizes, default=0) * 2
