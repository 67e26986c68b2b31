"""Days of outages, restarts and a vendor that fails: each outage is found once, and closed when proven."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median

import pytest

from ingest.errors import VendorUnavailable
from ingest.event import Cause
from ingest.vendors import AnyAccount
from ingest.warehouse.completeness import HOUR
from ingest.warehouse.gaps import Gap
from receivers.completeness.gaps import gap_hours, provable_at
from receivers.reconcile.report import Report
from tests.receivers.completeness.test_closing import MINUTE, NOON, World, lost, sign

DAYS = 5
STEP = 10 * MINUTE


class Life(World):
    """A world in which a comparison proves the hours that it can, and outages happen by chance."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
        self.chance = random.Random(seed)
        self.outages: list[tuple[Cause, datetime, datetime]] = []
        self._sign_at = NOON
        super().__init__(folder, monkeypatch)
        self.append(sign(NOON, "started"))

    def run(self, account: AnyAccount, since: datetime, until: datetime | None) -> Report:
        self.failure = VendorUnavailable("it is down") if self.chance.random() < 0.2 else None
        report = super().run(account, since, until)
        hour = since
        while self.failure is None and provable_at(hour, self.settings.reconcile.lag) <= self.now:
            if until is None or hour + HOUR <= until:
                self.prove(hour)
            hour += HOUR
        return report

    def live(self) -> None:
        """Live for some minutes: most of the time nothing happens."""
        begin, self.now = self.now, self.now + STEP
        kind = self.chance.random()
        if kind < 0.02:
            self.stop(begin + MINUTE, is_clean=True)
        elif kind < 0.04:
            self.stop(self._sign_at)  # killed
        else:
            self.sign()
        for share, cause in ((0.02, Cause.GIVEN_UP), (0.01, Cause.LOG_DELETED), (0.01, Cause.LOG_CHANGED)):
            if self.chance.random() < share:
                since = self.now - self.chance.uniform(1, 300) * MINUTE
                self.append(lost("bookeo", self.now, since, cause))
                self.outages.append((cause, since, self.now))

    def sign(self) -> None:
        """Let the receiver say that it has run."""
        self.append(sign(self.now, "runs", self._sign_at))
        self._sign_at = self.now

    def stop(self, since: datetime, *, is_clean: bool = False) -> None:
        """Let no receiver run for a while, which may be minutes or hours."""
        if is_clean:
            self.append(sign(since, "stopped", self._sign_at))
        end = since + self.chance.choice((6, 60, 600)) * self.chance.random() * MINUTE + STEP
        while self.now < end:
            self.now += STEP
            self.step()
        self.append(sign(self.now, "started"))
        self._sign_at = self.now
        self.outages.append((Cause.RECEIVER_DOWN, since, self.now))

    def gaps(self) -> list[Gap]:
        return [gap for cause in Cause for gap in self.closer.book.of_cause("/bookeo/bookeo", cause)]


@pytest.fixture(params=[1, 2])
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Life]:
    life = Life(tmp_path, monkeypatch, request.param)
    yield life
    life.producer.close()


def test_every_outage_is_found_once_and_closed_only_when_it_is_proven(life: Life) -> None:
    while life.now < NOON + timedelta(days=DAYS):
        life.live()
        if life.chance.random() < 0.02:
            life.restart()
        life.step()
        for gap in life.gaps():
            if gap.closed_at == life.now:  # and not before
                assert all(hour in life.verdicts for hour in gap_hours(gap, life.now)), gap
    for _ in range(30):
        life.now += STEP
        life.sign()
        life.step()
    gaps = life.gaps()
    assert [gap for gap in gaps if gap.is_open] == []
    for cause, since, until in life.outages:
        assert any(
            gap.cause is cause and gap.from_at <= since and gap.until_at and gap.until_at >= until
            for gap in gaps
        ), (cause, since, until)
    assert len(life.outages) > 20
    assert len(gaps) <= len(life.outages), "none is there twice"
    assert len(gaps) == len({row["id"] for row in life.statements()})
    waits = [(gap.closed_at - gap.until_at) / HOUR for gap in gaps if gap.closed_at and gap.until_at]
    assert median(waits) < 1.5
