"""A wrong clock is noticed by what vendors sign, and nobody can make a right one look wrong."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ingest.clock import read_clock_ahead, write_clock_ahead
from ingest.readiness import State
from ingest.times import parse_instant
from ingest.vendors import calendly
from receivers.clock import MeasuredClock, SignatureClock, finding, readiness, verdict
from tests.ingest.vendors.samples_of import Case, load
from tests.receivers.in_process import Answer, InProcess
from tests.receivers.requests import SECRET, Request, booking_body
from tests.support.polling import wait_for

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
ZERO = timedelta(0)


class Passing:
    """A monotonic clock."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def heard(*ages: timedelta, source: str = "a", clock: SignatureClock | None = None) -> SignatureClock:
    """Note deliveries of an account that were signed so long before they came; negative: in our future."""
    clock = clock or SignatureClock(Passing())
    for number, age in enumerate(ages):
        clock.note(source, NOW - age, b"%d" % number)
    return clock


def test_three_different_deliveries_that_agree_make_a_witness() -> None:
    assert heard(-HOUR, -HOUR).votes(NOW) == {}
    assert heard(-HOUR, -HOUR, -HOUR).votes(NOW) == {"a": -HOUR}


def test_one_delivery_that_comes_again_and_again_counts_once() -> None:
    passing = Passing()
    clock = SignatureClock(passing)
    for passing.seconds in range(100):
        clock.note("a", NOW - HOUR, b"captured")
    assert clock.votes(NOW) == {}


def test_old_signatures_say_nothing_where_younger_ones_agree() -> None:
    assert heard(HOUR, HOUR, HOUR, SECOND, ZERO, SECOND, HOUR, HOUR).votes(NOW) == {"a": ZERO}


def test_retries_of_different_ages_do_not_agree() -> None:
    assert heard(5 * MINUTE, 12 * MINUTE, 30 * MINUTE).votes(NOW) == {}


def test_what_was_heard_holds_when_the_clock_is_set_and_is_forgotten_in_time() -> None:
    passing = Passing()
    clock = heard(-HOUR, -HOUR, -HOUR, clock=SignatureClock(passing))
    passing.seconds = 600
    assert clock.votes(NOW + 10 * MINUTE) == {"a": -HOUR}
    assert clock.votes(NOW + HOUR + 10 * MINUTE) == {"a": ZERO}, "the clock was set right"
    passing.seconds = 86400
    assert clock.votes(NOW) == {}


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_one_account_of_several_convinces_nobody(ahead: timedelta) -> None:
    assert verdict({"a": ahead}, 3, None) == ZERO
    assert verdict({"a": ahead, "b": ZERO, "c": SECOND}, 3, None) == ZERO
    assert verdict({"a": ahead, "b": ZERO}, 2, None) == ZERO


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_more_than_half_of_the_accounts_convince(ahead: timedelta) -> None:
    assert verdict({"a": ahead, "b": ahead + SECOND}, 5, None) == ahead
    assert verdict({"a": ahead, "b": ahead, "c": ZERO}, 3, None) == ahead


def test_the_only_account_can_say_that_we_are_behind_and_not_that_we_are_ahead() -> None:
    assert verdict({"a": -HOUR}, 1, None) == -HOUR
    assert verdict({"a": HOUR}, 1, None) == ZERO


@given(st.dictionaries(st.text(), st.timedeltas(-HOUR, HOUR)), st.integers(0, 9))
def test_what_was_measured_decides_alone(votes: dict[str, timedelta], accounts: int) -> None:
    assert verdict(votes, accounts, ZERO) == ZERO
    assert verdict(votes, accounts, SECOND) == ZERO
    assert verdict(votes, accounts, HOUR) == HOUR


@given(st.lists(st.timedeltas(ZERO, HOUR), max_size=12), st.integers(1, 3))
def test_whoever_replays_can_never_make_us_look_behind(ages: list[timedelta], accounts: int) -> None:
    """The age of a captured delivery is always positive."""
    clock = heard(*ages, source="a", clock=heard(*reversed(ages), source="b"))
    assert verdict(clock.votes(NOW), accounts, None) >= ZERO


def test_it_is_told_and_no_failure() -> None:
    assert finding(ZERO).state is State.OK
    assert finding(-2 * MINUTE).state is State.WARNING
    assert "2 min behind" in finding(-2 * MINUTE).detail


def test_what_was_measured_holds_though_the_clock_is_set_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_clock_ahead(tmp_path) is None
    monkeypatch.setattr("ingest.clock._boot", lambda: "this one")
    write_clock_ahead(tmp_path, ZERO)
    result = read_clock_ahead(tmp_path)
    assert result is not None
    assert abs(result) < MINUTE
    right = time.time
    monkeypatch.setattr("ingest.clock.time.time", lambda: right() + 3600)
    result = read_clock_ahead(tmp_path)
    assert result is not None
    assert abs(result - HOUR) < MINUTE
    monkeypatch.setattr("ingest.clock._boot", lambda: "another one")
    assert read_clock_ahead(tmp_path) is None
    (tmp_path / "clock.json").write_bytes(b"[]")
    assert read_clock_ahead(tmp_path) is None


def test_the_vendors_time_is_known_after_a_comparison_and_goes_on_by_a_clock_that_nobody_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.clock._boot", lambda: "this one")
    passing = Passing()
    clock = MeasuredClock(tmp_path, passing)
    assert clock.now() is None
    write_clock_ahead(tmp_path, -HOUR)
    assert clock.now() is None, "the file is not read for each delivery"
    passing.seconds = 6
    result = clock.now()
    assert result is not None
    assert abs(result - datetime.now(UTC) - HOUR) < MINUTE
    passing.seconds = 10
    assert clock.now() == result + 4 * SECOND


class Late(datetime):
    """A clock that is behind or ahead."""

    ahead = ZERO

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + cls.ahead


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InProcess]:
    """Return a receiver of two accounts, one of which takes nothing older than three minutes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("receivers.webhook.datetime", Late)
    monkeypatch.setattr(Late, "ahead", ZERO)
    account = {"vendor": "calendly", "webhook_secrets": [SECRET]}
    receiver = InProcess(tmp_path, {"sales": account | {"tolerance": "3m"}, "support": account})
    yield receiver
    receiver.close()


def delivery(account: str, number: int, age: timedelta = ZERO) -> Request:
    body = booking_body(number)
    headers = calendly.sign(SECRET, body, datetime.now(UTC) - age)
    return Request(f"/webhooks/calendly/{account}", tuple(headers.items()), (body,))


def statuses(receiver: InProcess, account: str, count: int, age: timedelta = ZERO) -> list[int]:
    return [receiver.ask(delivery(account, number, age)).status for number in range(count)]


def test_right_deliveries_are_to_come_again_while_the_clock_is_behind(
    two: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Late, "ahead", -10 * MINUTE)
    with capture_logs() as lines:
        assert statuses(two, "sales", 3) == [401, 401, 401]
        assert statuses(two, "support", 4) == [401, 401, 503, 503]
        assert statuses(two, "sales", 1) == [503]
    [line] = [
        line
        for line in lines
        if line["event"] == "delivery.clock_wrong" and line["source"] == "/calendly/sales"
    ]
    assert "9 min 5" in line["why"] or "10 min" in line["why"]
    assert "behind" in line["why"]
    labels = {"vendor": "calendly", "account": "sales"}
    assert REGISTRY.get_sample_value("ingest_clock_skew_seconds", labels) == pytest.approx(-600, abs=30)
    assert readiness(two.settings).state is State.WARNING
    monkeypatch.setattr(Late, "ahead", ZERO)
    assert statuses(two, "sales", 1) == [202]
    # A vote of the last second stands.
    wait_for(
        lambda: statuses(two, "sales", 1) == [202] and readiness(two.settings).state is State.OK,
        "the clock is found to be right again",
    )


def test_right_deliveries_are_to_come_again_while_the_clock_is_ahead(
    two: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Late, "ahead", 4 * MINUTE)
    assert statuses(two, "support", 3) == [202, 202, 202]
    assert statuses(two, "sales", 3) == [401, 401, 503]
    assert two.ask(delivery("sales", 1, HOUR)).status == 401, "one that is old by the right clock too"


def test_a_captured_delivery_stays_refused_however_often_it_comes(two: InProcess) -> None:
    old = delivery("sales", 1, HOUR)
    assert {two.ask(old).status for _ in range(20)} == {401}
    assert statuses(two, "sales", 20, HOUR) == [401] * 20
    assert statuses(two, "support", 3) == [202] * 3
    assert two.ask(old) == Answer(401, {"content-length": "0"}, b"")


def test_an_account_whose_own_clock_is_wrong_is_refused_alone(two: InProcess) -> None:
    assert statuses(two, "support", 9, -10 * MINUTE) == [401] * 9
    assert statuses(two, "sales", 3) == [202] * 3
    assert statuses(two, "support", 9, -10 * MINUTE) == [401] * 9


def test_a_forged_delivery_tells_nothing_of_the_clock(two: InProcess) -> None:
    body = booking_body(1)
    headers = tuple(calendly.sign("another secret", body, datetime.now(UTC) + HOUR).items())
    for _ in range(3):
        assert two.ask(Request("/webhooks/calendly/sales", headers, (body,))).status == 401
    assert statuses(two, "support", 3, -HOUR) == [401] * 3


SALON = {"vendor": "appointedd", "webhook_secrets": [SECRET], "webhook_header": "X-Token"}


@pytest.mark.parametrize("body", [load(Case("appointedd", "created-basic-auth")).body, b"no booking"])
def test_what_was_measured_corrects_the_time_of_receipt_in_records_and_dead_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ingest.clock._boot", lambda: "this one")
    monkeypatch.setattr("receivers.webhook.datetime", Late)
    monkeypatch.setattr(Late, "ahead", -HOUR)
    receiver = InProcess(tmp_path, {"salon": SALON})
    folder = Path(receiver.settings.reconcile.state_dir)
    folder.mkdir(parents=True)
    write_clock_ahead(folder, ZERO)
    request = Request("/webhooks/appointedd/salon", (("X-Token", SECRET),), (body,))
    assert receiver.ask(request).status == 202
    records, letters = receiver.events("appointedd"), receiver.dead_letters()
    receiver.close()
    [stored_headers] = [record.headers for record in records] + [
        orjson.loads(item.headers["dl_headers"]) for item in letters
    ]
    assert abs(parse_instant(stored_headers["ce_receivedby"]) - datetime.now(UTC)) < MINUTE
    assert all(record.headers["ce_time"] == stored_headers["ce_receivedby"] for record in records)
