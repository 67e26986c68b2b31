"""Reconciliation holds a bounded number of bytes, whatever the vendor's bookings are like, and finds all of them."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from ingest.log import Record
from receivers.reconcile import repairs, sweep
from receivers.reconcile.outlets import Outlet
from receivers.reconcile.sweep import Sweep
from tests.reconcile.shop import Shop

_FEW_BYTES = 4096  # a booking of a simulated vendor has more than a fifth of that


@pytest.mark.parametrize("account", ["calendly", "bookeo"])
def test_blocks_and_repairs_are_bounded_by_bytes(
    tmp_path: Path, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_BLOCK_BYTES", _FEW_BYTES)
    monkeypatch.setattr(repairs, "_MANY_BYTES", _FEW_BYTES)
    taken, appended = [], []
    take, append = Sweep._take, Outlet.append

    def noted_take(self: Sweep, read: Sequence[sweep._Read]) -> set[str]:
        taken.append([sweep._json_bytes(one.record) for one in read])
        return take(self, read)

    def noted_append(self: Outlet, records: Sequence[Record]) -> None:
        appended.append([len(record.value) for record in records])
        append(self, records)

    monkeypatch.setattr(Sweep, "_take", noted_take)
    monkeypatch.setattr(Outlet, "append", noted_append)
    with Shop(tmp_path, [account]).open() as shop:
        shop.live(30)
        report = shop.reconcile()[account]
        assert report.failure is None
        assert report.counts.repaired == report.counts.missed > 0
        assert shop.wrong() == []
    assert len(taken) > 1
    assert len(appended) > 1
    for sizes in (*taken, *appended):
        assert sum(sizes[:-1]) < _FEW_BYTES + max(sizes, default=0) * 2
