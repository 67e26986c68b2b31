"""Each cause of a gap, made to happen: found once, also over restarts, and ended when it is over."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing as closed
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest

from ingest.errors import WarehouseUnavailable
from ingest.event import Cause, Event
from ingest.log import Backlog, Partition, Start, StoredRecord
from ingest.settings import Settings
from ingest.times import format_instant
from ingest.warehouse.completeness import HOUR
from ingest.warehouse.deliveries import Arrivals
from ingest.warehouse.gaps import Gap
from receivers.completeness import finding
from tests.receivers.completeness.test_closing import MINUTE, NOON, World, lost, sign


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(finding, "arrivals", lambda *_: Arrivals(last=NOON - HOUR))
    world = World(tmp_path, monkeypatch)
    yield world
    world.producer.close()


def sign_of(receiver: str, minutes: float, state: str = "runs", **refused: Sequence[float]) -> Event:
    """Return a receiver's sign of life at a minute after noon, with the minutes of its refusals."""
    at = NOON + minutes * MINUTE
    event = sign(at, state, at if state == "started" else at - MINUTE)
    data = orjson.loads(event.data)
    for cause, refused_at in refused.items():
        instants = [format_instant(NOON + minute * MINUTE) for minute in refused_at]
        spans = [{"count": 1, "since": instant, "until": instant} for instant in instants]
        data[cause] = {"/bookeo/bookeo": spans}
    return replace(event, id=f"{receiver} {event.id}", subject=receiver, data=orjson.dumps(data))


def minutes(gap: Gap) -> tuple[float, float | None]:
    """Return the span of a gap in minutes after noon."""
    until = None if gap.until_at is None else (gap.until_at - NOON) / MINUTE
    return (gap.from_at - NOON) / MINUTE, until


def test_a_downtime_ends_also_if_signs_that_came_late_show_that_there_was_none(world: World) -> None:
    world.append(sign(NOON - 20 * MINUTE, "started"), sign(NOON - 10 * MINUTE, "runs", NOON - 20 * MINUTE))
    world.step()
    assert [gap.until_at for gap in world.open()] == [None]
    world.append(sign(NOON + MINUTE, "runs", NOON - 11 * MINUTE))  # the log took none meanwhile
    world.step(minutes=1)
    assert [minutes(gap) for gap in world.open()] == [(-10, -10)]


def test_a_downtime_ends_also_while_nobody_looks(world: World) -> None:
    world.append(sign(NOON - 20 * MINUTE, "started"), sign(NOON - 10 * MINUTE, "runs", NOON - 20 * MINUTE))
    world.step()
    world.restart()
    world.append(sign(NOON + 2 * MINUTE, "started"))
    world.step(minutes=3)
    assert [minutes(gap) for gap in world.open()] == [(-10, 2)]


def test_what_a_killed_receiver_refused_last_is_a_gap_although_another_one_runs(world: World) -> None:
    world.append(*(sign_of("other", minute) for minute in range(-1, 10)))
    world.append(sign_of("killed", 0, "started"), sign_of("killed", 1))
    world.append(sign_of("stopped", 0, "started"), sign_of("stopped", 1, "stopped"))
    world.step(minutes=3.5)
    assert world.open() == [], "it may be slow"
    for _ in range(2):
        world.step(minutes=1)
        assert [(gap.cause, *minutes(gap)) for gap in world.open()] == [(Cause.RECEIVER_DOWN, 1, 2)]
        world.restart()


def test_a_killed_receiver_that_was_forgotten_is_a_gap_of_an_account_that_comes_later(world: World) -> None:
    world.append(*(sign_of("other", minute) for minute in range(-1, 20)))
    world.append(sign_of("killed", 0, "started"), sign_of("killed", 1))
    for names in (["bookeo"], ["bookeo"], ["bookeo", "oncehub"]):
        world.step(*names, minutes=5)
        assert {(gap.account, *minutes(gap)) for gap in world.open()} == {(name, 1, 2) for name in names}
        assert world.closer.finder._life.killed(world.now) == []


def test_a_refusal_for_the_time_of_a_signature_is_a_gap_at_that_time(world: World) -> None:
    world.append(sign_of("only", 1, untimely=[-9000, -90], unavailable=[0.5]))
    world.step(minutes=1)
    assert {(gap.cause, *minutes(gap)) for gap in world.open()} == {
        (Cause.CLOCK_WRONG, -9000, -9000),
        (Cause.CLOCK_WRONG, -90, -90),
        (Cause.UNAVAILABLE, 0.5, 0.5),
    }


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_wrong_subscription_is_one_gap_and_ends_although_a_process_starts_meanwhile(
    world: World, is_restarted: bool
) -> None:
    bookeo = world.account("bookeo")
    for why in ("", "Bookeo blocked it", "Bookeo blocked it", "Bookeo blocked it"):
        world.closer.finder.note_subscription(bookeo, why)
        world.step(minutes=60)
        if is_restarted:
            world.restart()
    world.step()
    (gap,) = world.open()
    assert gap.until_at is None
    world.restart()
    world.closer.finder.note_subscription(bookeo, "")
    world.step()
    assert [gap.until_at for gap in world.open()] == [world.now]


def test_a_wrong_clock_is_one_gap_although_a_process_starts_meanwhile(world: World) -> None:
    bookeo = world.account("bookeo")
    for ahead in (0, 20, 20, 20):
        world.clock_ahead = ahead * MINUTE
        world.closer.finder.note_report(bookeo, world.run(bookeo, NOON, None))
        world.step(minutes=20)
        world.restart()
    world.step()
    (gap,) = world.open()
    assert (gap.cause, gap.until_at) == (Cause.CLOCK_WRONG, None)


def test_what_a_check_found_is_not_forgotten_while_the_warehouse_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(finding, "arrivals", fail)
        world.closer.finder.note_subscription(world.account("bookeo"), "Calendly disabled it")
        world.closer.finder.note_made_anew(world.account("bookeo"), NOON - 2 * HOUR)
        world.step()
        assert [minutes(gap) for gap in world.open()] == [(-120, 0)], "that needs no warehouse"
    world.closer.finder.note_subscription(world.account("bookeo"), "")
    world.step()
    assert sorted(minutes(gap) for gap in world.open()) == [(-120, 0), (-60, 0)]


def fail(*_: object) -> Arrivals:
    raise WarehouseUnavailable("away")


def test_what_a_check_found_is_dated_when_it_was_checked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    finder, bookeo = world.closer.finder, world.account("bookeo")
    with monkeypatch.context() as patch:
        patch.setattr(finding, "read_gaps", fail)
        finder.note_subscription(bookeo, "")
        finder.note_report(bookeo, world.run(bookeo, NOON, None))
        world.step(minutes=60)
        assert world.open() == []
    world.clock_ahead = timedelta(0)
    finder.note_report(bookeo, world.run(bookeo, NOON, None))
    world.step(minutes=30)
    world.clock_ahead = timedelta(minutes=20)
    finder.note_subscription(bookeo, "Bookeo blocked it")
    finder.note_report(bookeo, world.run(bookeo, NOON, None))
    finder.note_made_anew(bookeo, NOON - HOUR)
    world.step(minutes=30)
    assert {(gap.cause, *minutes(gap)) for gap in world.open()} == {
        (Cause.SUBSCRIPTION, 0, None),
        (Cause.SUBSCRIPTION, -60, 90),
        (Cause.CLOCK_WRONG, 60, None),
    }


def test_what_is_wrong_began_before_it_was_found_whatever_came_since(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = [NOON - HOUR, NOON + HOUR]

    def arrivals(_settings: Settings, _vendor: str, _account: str, until: datetime) -> Arrivals:
        return Arrivals(last=max(at for at in came if at <= until))

    monkeypatch.setattr(finding, "arrivals", arrivals)
    world.closer.finder.note_subscription(world.account("bookeo"), "Bookeo blocked it")
    world.now += 50 * MINUTE
    world.closer.finder.note_subscription(world.account("bookeo"), "")
    world.step(minutes=60)
    assert [minutes(gap) for gap in world.open()] == [(-60, 50)]


def test_an_account_whose_arrivals_cannot_be_read_does_not_keep_others_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def arrivals(_settings: Settings, vendor: str, *_: object) -> Arrivals:
        if vendor == "bookeo":
            raise WarehouseUnavailable("away")
        return Arrivals(last=NOON - HOUR)

    with monkeypatch.context() as patch:
        patch.setattr(finding, "arrivals", arrivals)
        for name in ("bookeo", "oncehub"):
            world.closer.finder.note_subscription(world.account(name), "it is switched off")
        world.step("bookeo", "oncehub")
        assert [gap.account for gap in world.open()] == ["oncehub"]
    world.step("bookeo", "oncehub")
    assert sorted(gap.account for gap in world.open()) == ["bookeo", "oncehub"]


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ("rrrwww", [(2, None)]),
        ("rwwrrw", [(0, 3), (4, None)]),
        ("rwrrrrwwr", [(0, 8)]),  # one for all that came and went
        ("rwrwrwrwrw" * 50, [(0, 498), (498, None)]),
    ],
)
def test_checks_of_a_long_outage_take_little_room_and_none_that_was_wrong_is_left_out(
    world: World, monkeypatch: pytest.MonkeyPatch, checks: str, expected: list[tuple[float, float | None]]
) -> None:
    finder, bookeo = world.closer.finder, world.account("bookeo")
    with monkeypatch.context() as patch:
        patch.setattr(finding, "read_gaps", fail)
        for check in checks:
            finder.note_subscription(bookeo, "it is switched off" if check == "w" else "")
            finder.note_made_anew(bookeo, NOON - HOUR)
            world.now += MINUTE
        world.step()
        assert sum(map(len, finder._checks.values())) < 10
    world.step()
    made_anew = (-60, len(checks) - 1)
    assert sorted(minutes(gap) for gap in world.open() if minutes(gap) != made_anew) == expected


def test_an_account_that_comes_later_has_the_gaps_of_before(world: World) -> None:
    world.append(lost("oncehub", NOON - 5 * MINUTE, NOON - 6 * MINUTE))
    world.step("bookeo")
    world.step("bookeo", "oncehub", minutes=30)
    assert [gap.account for gap in world.open()] == ["oncehub"]


def test_a_log_whose_clock_is_behind_is_read_to_its_end(world: World) -> None:
    file = world.settings.build_log().file
    assert file
    for number in range(3):
        world.append(lost("bookeo", NOON, NOON - (number + 1) * HOUR, [*Cause][number]))
        with closed(sqlite3.connect(file)) as connection:
            connection.execute(
                "UPDATE records SET appended_at = appended_at - 86400 WHERE offset = ?", [number]
            )
            connection.commit()
        world.step()
        assert len(world.open()) == number + 1


@pytest.mark.parametrize("cause", [Cause.LOG_CHANGED, Cause.WAREHOUSE_RESTORED])
def test_a_store_that_has_lost_something_gets_all_gaps_again(world: World, cause: Cause) -> None:
    world.append(lost("bookeo", NOON - 5 * MINUTE, NOON - 3 * HOUR, Cause.GIVEN_UP))
    world.step()
    closer = world.closer
    world.renew_log()
    world.closer, closer.producer = closer, world.producer
    world.append(lost("bookeo", NOON, NOON - 10 * MINUTE, cause))
    world.step(minutes=1)
    assert {row["cause"] for row in world.statements()} == {Cause.GIVEN_UP, cause}


def test_gaps_of_an_account_that_was_removed_are_closed_and_those_of_others_stay(world: World) -> None:
    world.append(lost("bookeo", NOON, NOON - HOUR), lost("oncehub", NOON, NOON - HOUR))
    world.step("bookeo", "oncehub")
    elsewhere = replace(world.open()[0], id="elsewhere", account="elsewhere")
    world.restart()
    world.closer.book.restate(elsewhere)
    world.closer.step([world.account("bookeo")], {"/bookeo/bookeo"})
    assert {gap.account for gap in world.open()} == {"bookeo", "elsewhere"}, "another log may have that one"
    (closed_gap,) = world.closer.book.of_cause("/oncehub/oncehub", Cause.LOG_DELETED)
    assert closed_gap.detail.endswith("the account was removed from the settings")
    assert closed_gap.waits_for is None


class LogOfTwoClocks:
    """The audit topic with two partitions: the clock of the second one is half an hour behind."""

    def __init__(self) -> None:
        self.events: tuple[list[Event], list[Event]] = ([], [])
        self.read = 0

    def reader(self, since: Start, _: Sequence[str]) -> SimpleNamespace:
        """Return a reader from these offsets on."""
        offsets = since if isinstance(since, dict) else {}
        stored = [
            StoredRecord(
                event.to_record(), Partition("audit", number), offset, self.appended_at(number, event)
            )
            for number, events in enumerate(self.events)
            for offset, event in enumerate(events)
            if offset >= offsets.get(number, 0)
        ]
        self.read = len(stored)
        return SimpleNamespace(records=lambda: stored, close=lambda: None)

    def backlog(self) -> list[Backlog]:
        """Return nothing: all is loaded."""
        return []

    def appended_at(self, number: int, event: Event) -> float:
        """Return the Unix time at which a partition's clock took the event."""
        return (event.time - number * HOUR / 2).timestamp()


def test_what_is_new_is_read_in_each_partition_whatever_its_clock_says(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogOfTwoClocks()
    monkeypatch.setattr(Settings, "build_log", lambda _: log)
    log.events[0].extend(sign_of("only", minute) for minute in range(10))
    log.events[1].append(sign_of("only", 0.5))
    world.step(minutes=9)
    log.events[1].append(sign_of("only", 9, unavailable=[8.5]))
    world.step(minutes=1)
    assert [(gap.cause, *minutes(gap)) for gap in world.open()] == [(Cause.UNAVAILABLE, 8.5, 8.5)]
    assert log.read == 3, "the last record of each partition, and the new one"
    del log.events[1][1:]
    world.step(minutes=1)
    assert [(gap.cause, gap.until_at) for gap in world.open()][1:] == [(Cause.LOG_CHANGED, world.now)]


def test_a_log_that_is_rewound_while_no_consumer_runs_is_a_gap_since_what_it_still_has(world: World) -> None:
    file = world.settings.build_log().file
    assert file
    appended_at = [NOON - 30 * MINUTE, NOON - 20 * MINUTE, NOON - MINUTE]
    world.append(*(sign(at, "runs", appended_at[0] - MINUTE) for at in appended_at))
    with closed(sqlite3.connect(file)) as connection:
        for offset, at in enumerate(appended_at):
            connection.execute(
                "UPDATE records SET appended_at = ? WHERE offset = ?", [at.timestamp(), offset]
            )
        connection.commit()
        world.step()
        assert world.open() == []
        connection.execute("DELETE FROM records WHERE offset = 2")
        connection.commit()
    for _ in range(2):
        world.step(minutes=1)
        assert [(gap.cause, *minutes(gap)) for gap in world.open()] == [(Cause.LOG_CHANGED, -20, 1)]


@pytest.mark.parametrize(("lost_since", "begins"), [(55, -51), (65, 65)])
def test_a_log_that_lost_what_a_spool_had_kept_is_a_gap_since_that_was_received(
    world: World, monkeypatch: pytest.MonkeyPatch, lost_since: float, begins: float
) -> None:
    spooled = [sign_of("only", minute) for minute in range(-50, 0)]
    log = LogOfTwoClocks()
    monkeypatch.setattr(Settings, "build_log", lambda _: log)
    monkeypatch.setattr(
        LogOfTwoClocks,
        "appended_at",
        lambda _, __, event: (NOON + HOUR if event in spooled else event.time).timestamp(),
    )
    log.events[0].extend([*spooled, lost("bookeo", NOON + 70 * MINUTE, NOON + lost_since * MINUTE)])
    world.step(minutes=71)
    assert {minutes(gap) for gap in world.open() if gap.cause is Cause.LOG_DELETED} == {(begins, 70)}
