"""Settings of a process that runs, as its files change."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ingest.errors import ConfigurationError
from ingest.readiness import State
from ingest.settings.sources import Live, Snapshot, load_settings, load_snapshot
from tests.support.polling import wait_for

pytestmark = pytest.mark.usefixtures("files_checked_at_each_call")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "value"
    path.write_text("one")
    return path


def reading(path: Path, before: Callable[[], object] = lambda: None) -> Callable[[], str]:
    def read() -> str:
        before()
        if (text := path.read_text()) == "broken":
            raise ConfigurationError("value is broken")
        return text

    return read


def test_whoever_asks_does_not_wait_for_a_reading_that_takes_long(file: Path) -> None:
    free = threading.Event()
    free.set()
    watched = Live(reading(file, free.wait), [file])
    free.clear()
    watched._took = 9.0  # seconds that the last reading took
    file.write_text("two")
    assert [watched.current() for _ in range(5)] == ["one"] * 5
    free.set()
    wait_for(lambda: watched.current() == "two", "it is read")


def test_what_is_broken_is_read_again_when_it_changes_and_seldom_otherwise(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    reads: list[float] = []
    watched = Live(reading(file, lambda: reads.append(now)), [file])
    file.write_text("broken")
    with capture_logs() as lines:
        for _ in range(600):
            assert watched.current() == "one"
            now += 1
    assert [line["event"] for line in lines] == ["secrets.not_reloaded"] * (len(reads) - 1)
    assert 8 < len(reads) < 20, "in ten minutes"
    file.write_text("whole again")
    assert watched.current() == "whole again"


def test_trouble_is_told_until_the_mistake_is_taken_back(file: Path) -> None:
    watched = Live(reading(file), [file])
    assert watched.findings() == []
    file.write_text("broken")
    (finding,) = watched.findings()
    assert (finding.check, finding.state) == ("settings", State.WARNING)
    assert "value is broken" in finding.detail
    file.write_text("two")
    assert watched.findings() == []


def test_a_value_that_was_handed_over_holds_while_the_file_is_broken(file: Path) -> None:
    file.write_text("broken")
    watched = Live(reading(file), [file], first="handed over")
    assert watched.current() == "handed over"
    file.write_text("two")
    assert watched.current() == "two"


def test_a_snapshot_makes_the_same_settings_and_shows_no_secret(tmp_path: Path) -> None:
    config = tmp_path / "ingest.toml"
    config.write_text('[accounts.sales]\nvendor = "calendly"\n')
    environ = {"INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS": "new,old", "INGEST_RECEIVER__PORT": "7"}
    snapshot = load_snapshot(str(config), environ)
    assert Snapshot.decode(snapshot.encode()).settings() == load_settings(str(config), environ)
    assert "new" not in repr(snapshot)
