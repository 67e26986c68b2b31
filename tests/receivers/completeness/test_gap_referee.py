"""The short form of the referee of gaps: what was kept away is in a gap, and each gap is closed by itself.

The long form is `python -m tests.referee.gaps`.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from ingest.event import Cause
from ingest.warehouse.completeness import HOUR
from receivers.completeness.causes import ReceiverLife
from receivers.completeness.undelivered import UndeliveredChanges
from tests.referee.gap_life import GapLife
from tests.referee.gaps import GapResult, judge_gaps
from tests.referee.plan import Plan

_FAULTS = Plan(
    hours=48,
    receiver_down=0.05,
    consumer_down=0.02,
    spooling=0.05,
    skewed=0.02,
    log_restored=0.03,
    warehouse_restored=0.02,
    retention=0.1,
)
_CALM = replace(
    _FAULTS, receiver_down=0, consumer_down=0, spooling=0, skewed=0, log_restored=0, warehouse_restored=0,
    subscription_off=0,
)  # fmt: skip


def test_each_delivery_that_was_kept_away_is_in_a_gap_and_each_gap_is_closed(tmp_path: Path) -> None:
    life = GapLife(tmp_path, _FAULTS, 1)
    result = judge_gaps(life)
    assert result.uncovered == []
    assert result.open == []
    assert result.false == []
    assert result.causes[Cause.RECEIVER_DOWN].waits
    assert life.tally.faults["kill of the closer"] > 0


def test_a_vendor_that_sends_nothing_is_in_a_gap_long_before_its_rhythm_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert judge_silence(tmp_path / "found").uncovered == []
    monkeypatch.setattr(UndeliveredChanges, "suspicions", lambda *_: iter(()))
    assert judge_silence(tmp_path / "weak").uncovered, "the referee sees what is not found"


def judge_silence(folder: Path) -> GapResult:
    """Live some days in which a vendor sends nothing for hours, and return what became of that."""
    life = GapLife(folder, replace(_CALM, hours=48, bookings_an_hour=2, page=20), 1)
    life.be_silent("oncehub", 12 * HOUR, 30 * HOUR)
    return judge_gaps(life)


def test_the_referee_sees_what_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReceiverLife, "downtimes", lambda *_: [])
    assert judge_gaps(GapLife(tmp_path, _FAULTS, 1)).uncovered
