"""Waits that a person watches."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest import locks, waits
from ingest.locks import exclusive
from ingest.waits import Wait, announcing, sleep, wait_while
from tests.support.processes import PythonProcess


class Clock:
    """Goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def lines() -> Iterator[list[str]]:
    lines: list[str] = []
    with announcing(lines.append):
        yield lines


def test_a_long_pause_is_told_at_its_start_and_then_now_and_then_with_what_is_left(
    clock: Clock, lines: list[str]
) -> None:
    sleep(300, "sales is asked again then", clock.pass_by)
    assert clock.now == pytest.approx(300)
    assert lines[0] == "waiting 300 s: sales is asked again then"
    remaining = [int(line.split()[1]) for line in lines]
    assert remaining == sorted(remaining, reverse=True)
    assert 10 < len(lines) < 30


def test_a_short_pause_is_nobodys_concern(clock: Clock, lines: list[str]) -> None:
    sleep(1.5, "soon", clock.pass_by)
    assert lines == []


def test_a_wait_of_unknown_length_says_how_long_it_has_been_and_what_for(
    clock: Clock, lines: list[str]
) -> None:
    wait = Wait("a consumer has to load it", 60)
    for second in range(31):
        wait.announce_if_due("it still has to" if second > 20 else "")
        clock.pass_by(1)
    assert lines == [
        "still waiting after 2 s (at most 60 s): a consumer has to load it",
        "still waiting after 17 s (at most 60 s): a consumer has to load it",
    ]
    clock.pass_by(5)
    wait.announce_if_due()
    assert lines[2:] == ["still waiting after 36 s (at most 60 s): it still has to"]


def test_what_moves_rarely_is_waited_for_a_minute_longer_than_that(
    clock: Clock, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", clock.pass_by)
    states = iter([7, 7, 5, *[5] * 10_000])

    def stalled(state: int, seconds: float) -> RuntimeError:
        return RuntimeError(f"{state} after {seconds:.0f} s")

    with pytest.raises(RuntimeError, match=r"^5 after 360 s$"):
        wait_while(lambda: next(states), stalled, "loads are rare", expected_seconds=300)
    assert clock.now == pytest.approx(360, abs=1)
    assert "loads are rare; gives up when nothing moves for 360 s" in lines[0]


def test_where_nobody_listens_nothing_is_told(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    sleep(60, "nobody", clock.pass_by)
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux tells who has a lock")
def test_who_has_a_lock_is_told_while_it_is_waited_for(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.lock"
    monkeypatch.setattr(waits, "_QUIET_SECONDS", 0.0)
    monkeypatch.setattr(locks, "_ROUND_SECONDS", 0.05)
    code = (
        f"from filelock import FileLock\nwith FileLock({str(file)!r}):\n print('held', flush=True)\n input()"
    )
    with PythonProcess(code) as holder:
        assert holder.read_line() == "held"
        with pytest.raises(TimeoutError):
            exclusive(file, 0.2, TimeoutError, purpose="another process has it")
        assert f"another process has it (process {holder.pid})" in lines[0]
        letting_go = threading.Timer(0.1, holder.write_line)
        letting_go.start()
        exclusive(file, 60.0, TimeoutError, purpose="another process has it").release()
        letting_go.join()
