"""A change that a comparison finds is in a gap, from the delivery before it to the one after it."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from ingest.errors import WarehouseUnavailable
from ingest.event import Cause
from ingest.settings import Settings
from ingest.simulator.world import Change
from receivers.completeness import finding, undelivered
from receivers.completeness.closing import GapCloser
from tests.receivers.completeness.test_closing import MINUTE, NOON, World, lost
from tests.receivers.reconcile.pipeline import Pipeline

BOOKEO = ("bookeo", "bookeo")


class QuietWorld(World):
    """A world in which webhooks came, and comparisons found changes, at these minutes after noon."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        self.came: list[float] = []
        self.found: list[float] = []
        self.queries = 0
        monkeypatch.setattr(undelivered, "missed_changes", self._missed_changes)
        monkeypatch.setattr(undelivered, "deliveries_around", self._deliveries_around)

    def look(self, *, came: list[float], found: list[float], now: float) -> list[tuple[float, float]]:
        """Take a step, and return the gaps of missing deliveries in minutes after noon."""
        self.came, self.found, self.now = came, found, NOON + now * MINUTE
        if came:
            self.last_deliveries[BOOKEO] = NOON + max(came) * MINUTE
        self.step()
        gaps = self.closer.book.of_cause("/bookeo/bookeo", Cause.NOT_DELIVERED)
        return sorted(
            ((gap.from_at - NOON) / MINUTE, (gap.until_at - NOON) / MINUTE) for gap in gaps if gap.until_at
        )

    def _missed_changes(self, *_: object) -> dict[tuple[str, str], list[datetime]]:
        return {BOOKEO: [NOON + minutes * MINUTE for minutes in sorted(self.found, reverse=True)]}

    def _deliveries_around(
        self, _: Settings, __: tuple[str, str], before: datetime, after: datetime
    ) -> tuple[datetime | None, datetime | None]:
        self.queries += 1
        came = [NOON + minutes * MINUTE for minutes in self.came]
        return (
            max((at for at in came if at <= before), default=None),
            min((at for at in came if at >= after), default=None),
        )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[QuietWorld]:
    world = QuietWorld(tmp_path, monkeypatch)
    yield world
    world.producer.close()


def test_a_change_between_two_deliveries_is_in_a_gap_between_them(world: QuietWorld) -> None:
    came, found = [-90.0, -60, -5, -1], [-40.0]
    assert world.look(came=came, found=found, now=0) == [(-60, -5)]
    for _ in range(2):
        queries = world.queries
        world.restart()
        assert world.look(came=came, found=found, now=1) == [(-60, -5)]
        assert world.queries - queries <= 1, "its own gap explains it"
        assert len({row["id"] for row in world.statements()}) == 1


def test_a_delivery_soon_after_the_change_may_be_about_an_earlier_one(world: QuietWorld) -> None:
    assert world.look(came=[-60, -38, -30], found=[-40], now=0) == [(-60, -30)]


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_vendor_that_sends_nothing_for_long_is_one_gap_that_grows_until_it_sends(
    world: QuietWorld, is_restarted: bool
) -> None:
    for found, now, until in (([-50.0], -10, -45), ([-50.0, -20], 40, -15), ([-20.0, 100], 130, 105)):
        assert world.look(came=[-60], found=found, now=now) == [(-60, until)]
        if is_restarted:
            world.restart()
    assert world.look(came=[-60, 300], found=[100], now=310) == [(-60, 300)]
    world.look(came=[-60, 300, 320], found=[100], now=330)
    assert world.look(came=[-60, 300, 320], found=[100], now=340) == [(-60, 300)]


def test_it_is_closed_when_its_hours_are_proven_and_opened_when_it_grows(world: QuietWorld) -> None:
    hours = [NOON - timedelta(hours=number) for number in range(1, 4)]
    world.look(came=[-60], found=[-50], now=-20)
    world.prove(*hours)
    world.look(came=[-60], found=[-50], now=0)
    assert world.open() == []
    assert world.runs == [], "what the comparison found is repaired, and the next timed one proves the hours"
    world.look(came=[-60], found=[-50, 10], now=30)
    (gap,) = world.open()
    assert gap.until_at == NOON + 15 * MINUTE
    world.prove(NOON)
    world.look(came=[-60], found=[-50, 10], now=62)
    assert world.open() == []


def test_what_another_gap_explains_is_in_no_further_one(world: QuietWorld) -> None:
    world.append(lost("bookeo", NOON - 30 * MINUTE, NOON - 50 * MINUTE))
    world.step()
    assert world.look(came=[-60, -10], found=[-52, -40, -30], now=0) == []
    assert world.look(came=[-60, -10], found=[-52, -40, -20], now=0) == [(-60, -10)]


def test_what_changed_before_the_first_delivery_was_not_missed(world: QuietWorld) -> None:
    assert world.look(came=[], found=[-40], now=0) == []
    found = [float(minute) for minute in range(-1000, -100)]
    assert world.look(came=[-50], found=found, now=0) == []
    assert world.queries <= 3, "one of them tells of all that are earlier"


def test_so_many_are_looked_for_at_once_and_the_rest_later(world: QuietWorld) -> None:
    came = [float(minute) for minute in range(-2000, 0, 10)]
    found = [minute + 1 for minute in came[:-2]]
    book, looks = world.closer.book, 0
    while not all(book.explains_miss("/bookeo/bookeo", NOON + minute * MINUTE) for minute in found):
        queries = world.queries
        world.look(came=came, found=found, now=0)
        assert world.queries - queries <= undelivered._MOST + 2
        looks += 1
    assert looks > 1


def test_while_the_warehouse_is_away_nothing_is_forgotten(
    world: QuietWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise WarehouseUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(undelivered, "missed_changes", fail)
        assert world.look(came=[-60, -5], found=[-40], now=0) == []
    assert world.look(came=[-60, -5], found=[-40], now=0) == [(-60, -5)]


@pytest.fixture(params=["appointedd", "bookeo", "calendly", "oncehub"])
def pipeline(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pipeline]:
    with Pipeline(tmp_path, [request.param]).open() as pipeline:
        yield pipeline


def test_a_vendor_that_sent_nothing_for_a_while_is_found_in_the_warehouse(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "_SILENCE_SECONDS", 0.0)
    changes = pipeline.simulate(12)
    first, last = len(changes) // 3, 2 * len(changes) // 3
    pipeline.deliver(changes[:first])
    pipeline.deliver(changes[last:])
    assert pipeline.differences()
    pipeline.reconcile()
    settings = pipeline.harness.settings
    (account,) = settings.build_accounts().values()
    for _ in range(2):
        GapCloser(settings, pipeline.harness.producer, lambda *_: None).find([account])
        pipeline.settle()
    gaps = pipeline.harness.rows("select * from gaps where cause = 'not_delivered'")
    received = [_received_at(change) for change in changes]
    for change in changes[first:last]:
        if _is_missed(pipeline, change):
            assert any(gap["from_at"] <= _received_at(change) <= gap["until_at"] for gap in gaps), change
    assert len(gaps) <= 3
    assert min(gap["from_at"] for gap in gaps) >= received[0]
    assert max(gap["until_at"] for gap in gaps) <= received[-1]


def _received_at(change: Change) -> datetime:
    return change.meeting.changed_at + timedelta(seconds=1)


def _is_missed(pipeline: Pipeline, change: Change) -> bool:
    """Return whether the vendor's list still shows the change: no later one of its booking is there."""
    return pipeline.world.meetings[change.account].get(change.meeting.number) is change.meeting
