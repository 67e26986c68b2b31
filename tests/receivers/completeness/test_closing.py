"""Gaps lead to comparisons of just their hours, and are closed by verdicts, whatever fails meanwhile."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from ingest.clock import LOOKBACK_IN_DOUBT
from ingest.errors import IngestError, LogUnavailable, VendorUnavailable, WarehouseUnavailable
from ingest.event import ALIVE, GAP, Cause, Event, build_loss_note
from ingest.log import Producer, Record
from ingest.rhythm import Rhythm
from ingest.settings import Settings
from ingest.telemetry import GAPS_OPEN
from ingest.times import format_instant
from ingest.vendors import AnyAccount
from ingest.warehouse.completeness import HOUR, HourVerdict, Verdict
from ingest.warehouse.deliveries import Arrivals
from ingest.warehouse.gaps import Gap
from receivers.completeness import closing, finding
from receivers.completeness.closing import GapCloser
from receivers.completeness.ledger import Ledger
from receivers.reconcile.report import Counts, Report
from tests.support.accounts import PUBLIC_URL, simulated_accounts
from tests.support.settings import settings_tree

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class World:
    """The log, the warehouse's verdicts, the vendor and the time, for a closer that can be restarted."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = Settings.model_validate(
            settings_tree(folder)
            | {
                "accounts": {
                    name: account.settings() for name, account in simulated_accounts(PUBLIC_URL).items()
                },
                "reconcile": {"state_dir": f"{folder}/reconcile"},
            }
        )
        self.folder, self.now = folder, NOON
        self.verdicts: dict[datetime, HourVerdict] = {}
        self.runs: list[tuple[str, datetime, datetime | None]] = []
        self.failure: IngestError | None = None
        self.clock_ahead: timedelta | None = None
        self.missed = 0
        self.last_deliveries: dict[tuple[str, str], datetime] = {}
        self.producer = self.settings.build_log().producer()
        monkeypatch.setattr(finding, "time_of_vendors", lambda _: self.now)
        monkeypatch.setattr(closing, "time_of_vendors", lambda _: self.now)
        monkeypatch.setattr(closing, "_LOOK_SECONDS", 0.0)
        monkeypatch.setattr(finding, "_SILENCE_SECONDS", 0.0)
        monkeypatch.setattr(finding, "last_deliveries", lambda _: self.last_deliveries)
        monkeypatch.setattr(Ledger, "verdicts", lambda *_: self.verdicts)
        self.restart()

    def restart(self) -> None:
        """Start a process anew, whose warehouse has no gaps loaded yet."""
        self.closer = GapCloser(self.settings, self.producer, self.run)

    def renew_log(self) -> None:
        """Replace the log by an empty one, and restart."""
        self.producer.close()
        for file in self.folder.glob("log.db*"):
            file.unlink()
        self.producer = self.settings.build_log().producer()
        self.restart()

    def account(self, name: str) -> AnyAccount:
        return next(account for account in self.settings.build_accounts().values() if account.name == name)

    def run(self, account: AnyAccount, since: datetime, until: datetime | None) -> Report:
        self.runs.append((account.name, since, until))
        counts = Counts(missed=self.missed, repaired=self.missed)
        return Report(
            account.vendor,
            account.name,
            since,
            until,
            self.now,
            self.now,
            counts,
            failure=self.failure,
            clock_ahead=self.clock_ahead,
        )

    def step(self, *names: str, minutes: float = 0) -> None:
        """Let so much time pass, and take a step for these accounts."""
        self.now += minutes * MINUTE
        self.closer.step([self.account(name) for name in names or ("bookeo",)])

    def append(self, *events: Event) -> None:
        records = [event.to_record() for event in events]
        self.producer.append(self.settings.audit_topic, records).result(10)

    def prove(self, *hours: datetime) -> None:
        for hour in hours:
            self.verdicts[hour] = HourVerdict(
                "bookeo", "bookeo", hour, Verdict.COMPLETE, self.now, proven_at=self.now
            )

    def open(self) -> list[Gap]:
        return self.closer.book.open()

    def statements(self) -> list[dict[str, Any]]:
        """Return what was stated about gaps in the log."""
        reader = self.settings.build_log().reader(None, [self.settings.audit_topic])
        try:
            events = [Event.from_record(stored.record) for stored in reader.records()]
        finally:
            reader.close()
        return [orjson.loads(event.data) for event in events if event.type == GAP]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path, monkeypatch)
    yield world
    world.producer.close()


def lost(name: str, at: datetime, since: datetime, cause: Cause = Cause.LOG_DELETED) -> Event:
    return build_loss_note(f"/{name}/{name}", at, cause=cause, since=since)


def sign(at: datetime, state: str, since: datetime | None = None) -> Event:
    data = {"state": state, "since": format_instant(since or at), "spool": "", "unavailable": {}}
    body = orjson.dumps(data)
    return Event(
        id=f"{state} {at}",
        source="/ingest/receiver",
        type=ALIVE,
        subject="one",
        time=at,
        received_at=at,
        data=body,
    )


def test_a_gap_is_compared_soon_and_closed_once_its_hour_is_proven(world: World) -> None:
    world.append(lost("bookeo", NOON + 10 * MINUTE, NOON + 6 * MINUTE))
    world.step(minutes=10)
    assert world.runs == [], "the vendor's REST side may be behind"
    world.missed = 2
    world.step(minutes=1.5)
    assert world.runs == [("bookeo", NOON, None)]
    (gap,) = world.open()
    assert (gap.missed, gap.repaired) == (2, 2)
    assert (
        gap.waits_for
        == "a comparison with the vendor of 2026-06-01 12:00 UTC, from 2026-06-01 13:01:10 UTC on"
    )
    world.step(minutes=20)
    assert len(world.runs) == 1, "asking again proves nothing before the hour is over"
    world.step(minutes=30)
    assert len(world.runs) == 2
    world.prove(NOON)
    world.step()
    assert world.open() == []
    assert [row["closed_at"] is not None for row in world.statements()][-1]
    assert GAPS_OPEN.labels("bookeo", "bookeo", Cause.LOG_DELETED.value)._value.get() == 0


def test_an_hour_that_is_proven_already_is_not_asked_for(world: World) -> None:
    world.prove(*(NOON - number * HOUR for number in range(1, 50)))
    world.append(lost("bookeo", NOON + 10 * MINUTE, NOON - timedelta(days=1)))
    world.step(minutes=15)
    assert world.runs == [("bookeo", NOON, None)]


def test_what_is_long_past_is_asked_for_up_to_its_end_and_one_by_starts_up_to_any_time(world: World) -> None:
    since, until = NOON - timedelta(days=3), NOON - timedelta(days=3) + 90 * MINUTE
    world.append(lost("bookeo", until, since), lost("calendly", until, since))
    world.step("bookeo", "calendly")
    assert world.runs == [
        ("bookeo", since - HOUR, since + 2 * HOUR),
        ("calendly", since - HOUR - world.settings.reconcile.lookback, None),
    ]


def test_gaps_of_one_account_are_compared_together_and_those_of_others_not_at_all(world: World) -> None:
    world.prove(*(NOON - number * HOUR for number in range(5, 91)))
    world.append(
        lost("bookeo", NOON - 90 * HOUR, NOON - 91 * HOUR, Cause.GIVEN_UP),
        lost("bookeo", NOON - 3 * HOUR, NOON - 3 * HOUR - MINUTE),
        lost("bookeo", NOON - 2 * MINUTE, NOON - 9 * MINUTE, Cause.LOG_CHANGED),
        lost("oncehub", NOON - 3 * HOUR, NOON - 4 * HOUR),
    )
    world.step()
    assert world.runs == [
        ("bookeo", NOON - 92 * HOUR, NOON - 90 * HOUR),
        ("bookeo", NOON - 4 * HOUR, None),
    ], "and not what is between them"
    assert len(world.open()) == 3


def test_a_vendor_that_fails_is_asked_again_less_and_less_often(world: World) -> None:
    world.failure = VendorUnavailable("it is down")
    world.append(lost("bookeo", NOON - 5 * MINUTE, NOON - 6 * MINUTE))
    for _ in range(20):
        world.step(minutes=1)
    assert len(world.runs) == 5
    assert world.open()[0].waits_for == "a comparison that works: it is down"
    world.failure = None
    world.step(minutes=16)
    assert len(world.runs) == 6


def test_nothing_is_forgotten_or_doubled_over_restarts(world: World) -> None:
    world.append(lost("bookeo", NOON - 5 * MINUTE, NOON - 6 * MINUTE))
    world.step()
    stated = len(world.statements())
    for _ in range(3):
        world.restart()
        world.step()
        assert len(world.open()) == 1
    assert len(world.statements()) == stated
    world.prove(NOON - HOUR)
    world.step()
    world.restart()
    world.step()
    assert world.open() == [], "a closed one stays closed, although its note is still there"
    assert {row["id"] for row in world.statements()} == {world.statements()[0]["id"]}


def test_a_receiver_that_is_down_is_a_gap_for_each_account_until_one_starts(world: World) -> None:
    world.append(sign(NOON - 20 * MINUTE, "started"), sign(NOON - 10 * MINUTE, "stopped", NOON - 20 * MINUTE))
    world.step("bookeo", "oncehub")
    assert [(gap.account, gap.until_at) for gap in world.open()] == [("bookeo", None), ("oncehub", None)]
    assert [run[0] for run in world.runs] == ["bookeo", "oncehub"], "what is missing until now is repaired"
    world.prove(NOON - HOUR, NOON)
    world.step("bookeo", "oncehub", minutes=5)
    assert len(world.open()) == 2, "it lasts"
    world.append(sign(world.now, "started"))
    world.step("bookeo", "oncehub")
    assert world.open() == []
    assert {row["until_at"] for row in world.statements() if row["closed_at"]} == {format_instant(world.now)}


def test_a_log_that_was_made_anew_shows_a_gap_since_the_last_sign_that_was_seen(world: World) -> None:
    world.append(sign(NOON - 20 * MINUTE, "started"), sign(NOON - 10 * MINUTE, "runs", NOON - 20 * MINUTE))
    world.now = NOON - 9 * MINUTE
    world.step()
    world.renew_log()
    world.now = NOON
    world.append(sign(NOON, "started"))
    world.step()
    (gap,) = world.open()
    assert (gap.cause, gap.from_at, gap.until_at) == (Cause.RECEIVER_DOWN, NOON - 10 * MINUTE, NOON)


def test_what_a_warehouse_has_lost_is_open_again_and_only_a_later_proof_closes_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reopened: list[datetime] = []

    def reopen(_: Ledger, hours: Sequence[datetime], __: str) -> None:
        reopened.extend(hours)
        for hour in hours:
            world.verdicts[hour] = replace(world.verdicts[hour], verdict=Verdict.OPEN, proven_at=None)

    monkeypatch.setattr(Ledger, "reopen", reopen)
    world.prove(NOON - 2 * HOUR, NOON - HOUR)
    world.append(lost("bookeo", NOON - 5 * MINUTE, NOON - HOUR, Cause.WAREHOUSE_RESTORED))
    world.step(minutes=10)
    assert reopened == [NOON - 2 * HOUR, NOON - HOUR]
    assert world.runs == [("bookeo", NOON - 2 * HOUR, None)]
    (gap,) = world.open()
    world.prove(NOON - 2 * HOUR)
    world.verdicts[NOON - HOUR] = replace(
        world.verdicts[NOON - 2 * HOUR], hour=NOON - HOUR, proven_at=gap.found_at
    )
    world.step()
    assert len(world.open()) == 1, "a proof is from before"
    world.now += MINUTE
    world.prove(NOON - 2 * HOUR, NOON - HOUR)
    world.step()
    assert world.open() == []
    assert len(reopened) == 2


def test_a_silence_in_which_nothing_is_missing_ends_by_that_and_is_not_found_again_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "hourly_deliveries", lambda *_: {})
    monkeypatch.setattr(finding, "learn_rhythm", lambda *_: Rhythm([20.0] * 168, weeks=8, group=1.0))
    world.last_deliveries = {("bookeo", "bookeo"): NOON - 2 * HOUR}
    world.step()
    (gap,) = world.open()
    assert (gap.cause, gap.from_at) == (Cause.SILENCE, NOON - 2 * HOUR)
    assert gap.until_at == world.now - world.settings.reconcile.lag
    world.prove(*(NOON - number * HOUR for number in range(1, 4)))
    world.step(minutes=5)
    assert world.open() == []
    world.prove(NOON, NOON + HOUR)
    world.step(minutes=60)
    (again,) = world.open()
    assert again.from_at == gap.until_at


def test_what_waits_to_be_loaded_is_no_silence(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "hourly_deliveries", lambda *_: {})
    monkeypatch.setattr(finding, "learn_rhythm", lambda *_: Rhythm([20.0] * 168, weeks=8, group=1.0))
    world.last_deliveries = {(name, name): NOON - 2 * HOUR for name in ("bookeo", "oncehub")}
    world.producer.append(world.settings.topic("bookeo"), [Record("key", b"not loaded")]).result(10)
    world.step("bookeo", "oncehub")
    assert [gap.account for gap in world.open()] == ["oncehub"]


def test_a_silence_in_which_something_is_missing_lasts_until_a_delivery_comes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "hourly_deliveries", lambda *_: {})
    monkeypatch.setattr(finding, "learn_rhythm", lambda *_: Rhythm([20.0] * 168, weeks=8, group=1.0))
    world.last_deliveries = {("bookeo", "bookeo"): NOON - 2 * HOUR}
    world.missed = 1
    world.step()
    world.step(minutes=30)
    (gap,) = world.open()
    assert (gap.until_at, gap.missed) == (None, 1)
    world.last_deliveries = {("bookeo", "bookeo"): world.now}
    world.step()
    assert world.open()[0].until_at == world.now


def test_a_wrong_clock_is_a_gap_until_it_is_right(world: World) -> None:
    world.append(lost("bookeo", NOON - 5 * MINUTE, NOON - 6 * MINUTE))
    world.clock_ahead = timedelta(minutes=20)
    world.step()
    world.step()
    assert [gap.cause for gap in world.open()] == [Cause.LOG_DELETED, Cause.CLOCK_WRONG]
    (_, wrong) = world.open()
    assert (wrong.from_at, wrong.until_at) == (NOON - world.settings.reconcile.lookback, None)
    world.clock_ahead = timedelta(0)
    report = world.run(world.account("bookeo"), NOON, None)
    world.closer.finder.note_report(world.account("bookeo"), report)
    world.step()
    assert next(gap for gap in world.open() if gap.cause is Cause.CLOCK_WRONG).until_at == world.now


def test_a_subscription_is_a_gap_while_it_is_not_right_and_once_it_was_made_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    years_ago = NOON - timedelta(days=900)
    monkeypatch.setattr(finding, "arrivals", lambda *_: Arrivals(last=years_ago))
    finder, bookeo = world.closer.finder, world.account("bookeo")
    finder.note_subscription(bookeo, "Bookeo blocked it")
    finder.note_subscription(bookeo, "Bookeo blocked it")
    world.step()
    (gap,) = world.open()
    assert (gap.from_at, gap.until_at) == (NOON - LOOKBACK_IN_DOUBT, None)
    world.now += HOUR
    finder.note_made_anew(bookeo, NOON)
    finder.note_subscription(bookeo, "")
    world.step()
    (gap,) = world.open()
    assert gap.until_at == world.now


def test_while_the_warehouse_cannot_be_asked_nothing_is_judged_and_nothing_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> list[Gap]:
        raise WarehouseUnavailable("away")

    world.append(lost("bookeo", NOON - 5 * MINUTE, NOON - 6 * MINUTE))
    with monkeypatch.context() as patch:
        patch.setattr(finding, "read_gaps", fail)
        world.step()
        assert (world.open(), world.runs) == ([], [])
    world.step()
    assert len(world.open()) == len(world.runs) == 1


class Away(Producer):
    """A log that takes nothing."""

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":  # noqa: ARG002 - it takes none
        future: Future[None] = Future()
        future.set_exception(LogUnavailable("away"))
        return future

    def close(self) -> None:
        pass


def test_what_the_log_does_not_take_is_stated_later(world: World) -> None:
    world.append(lost("bookeo", NOON - 5 * MINUTE, NOON - 6 * MINUTE))
    world.closer.producer = Away()
    world.step()
    assert world.runs == [], "a gap is in the log before anything is done about it"
    world.closer.producer = world.producer
    world.step()
    assert len(world.statements()) > 0
    assert len(world.runs) == 1
