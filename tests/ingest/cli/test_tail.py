"""`ingest tail`, as people and scripts use it."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import sample
from tests.support.polling import wait_for
from tests.support.processes import refused
from tests.support.settings import CommandRunner, settings_tree


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsumerHarness]:
    """Return a consumer of two bookings, one of which was cancelled, whose feed is on."""
    folder = tmp_path_factory.mktemp("tail")
    with open_consumer(settings_tree(folder) | {"feed": {"enabled": True}}) as harness:
        harness.load(sample(1, "B1", at=1))
        harness.load(sample(2, "B2", at=2, status="canceled", starting_time="2026-05-09T10:00:00Z"))
        yield harness


@pytest.fixture(scope="module")
def command(harness: ConsumerHarness) -> CommandRunner:
    folder = Path(str(harness.settings.warehouse.duckdb_file)).parent
    return CommandRunner(folder, settings_tree(folder) | {"feed": {"enabled": True}})


def changes(command: CommandRunner, *options: str) -> list[dict[str, Any]]:
    answer = command.run("tail", "--once", "--json", *options)
    assert answer.code == 0, answer
    return [json.loads(line) for line in answer.out.splitlines()]


def test_lines_are_events_with_the_position_to_continue_at(command: CommandRunner) -> None:
    first, second = changes(command, "--since", "1h")
    assert (first["type"], first["subject"], first["data"]["status"]) == (
        "ingest.booking.changed",
        "B1",
        "confirmed",
    )
    assert changes(command, "--after", first["position"]) == [second]


def test_filters_choose_changes(command: CommandRunner) -> None:
    [change] = changes(command, "--since", "1h", "--status", "cancelled")
    assert change["subject"] == "B2"
    assert changes(command, "--since", "1h", "--account", "other") == []
    assert len(changes(command, "--since", "1h", "--vendor", "bookeo", "--vendor", "oncehub")) == 2


def test_for_people_it_is_a_line_and_ctrl_c_says_how_to_continue(
    command: CommandRunner, harness: ConsumerHarness
) -> None:
    with command.start("tail", "--since", "1h") as process:
        wait_for(lambda: process.stdout().count("\n") >= 2, "what was published is printed")
        harness.load(sample(3, "B3", at=3))
        wait_for(lambda: "B3" in process.stdout(), "what comes later is printed")
        process.process.send_signal(signal.SIGINT)
        wait_for(lambda: not process.running, "it ends")
        assert "oncehub/support  cancelled" in process.stdout()
        assert "Ada Example · told by E2 · at 2026-05-09T10:00:00Z  B2" in process.stdout()
        assert "--after 0:3" in process.stderr()


def test_what_makes_no_sense_is_refused(command: CommandRunner) -> None:
    assert "--after" in refused(command.run("tail", "--after", "nonsense"))
    assert "either" in refused(command.run("tail", "--after", "0:1", "--since", "1h"))
    assert "--since" in refused(command.run("tail", "--since", "yesterday"))


def test_without_a_feed_it_says_how_to_switch_it_on(tmp_path: Path) -> None:
    assert "feed.enabled" in refused(CommandRunner(tmp_path, settings_tree(tmp_path)).run("tail"))
