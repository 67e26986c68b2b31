"""How `up` restarts its processes: at once where it can go back to settings that worked."""

import subprocess
import time
from dataclasses import dataclass, field
from typing import cast

import pytest

from ingest.cli.up import ChildProcess
from ingest.settings.sources import Live, Snapshot

OLD, NEW = Snapshot({"topic_prefix": "old"}, ""), Snapshot({"topic_prefix": "new"}, "")


@dataclass
class Files:
    """The settings files, with what they say now."""

    value: Snapshot = OLD

    def current(self) -> Snapshot:
        return self.value


@dataclass
class Process:
    """A child that runs until it has an exit code."""

    code: int | None = None
    stdin: None = None

    def poll(self) -> int | None:
        return self.code


@dataclass
class Machine:
    """A machine with its clock and the processes that were started."""

    now: float = 1000.0
    started: list[Process] = field(default_factory=list)

    def start(self, *_: object, **__: object) -> Process:
        self.started.append(Process())
        return self.started[-1]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    fake_machine = Machine()
    monkeypatch.setattr(time, "monotonic", lambda: fake_machine.now)
    monkeypatch.setattr(subprocess, "Popen", fake_machine.start)
    return fake_machine


def test_a_child_that_refuses_changed_settings_is_started_with_the_old_ones_at_once(machine: Machine) -> None:
    files = Files()
    child = ChildProcess(cast("Live[Snapshot]", files), "receive")
    machine.now += 60  # it has worked with these settings
    assert child.poll() is None
    files.value = NEW
    for code, pause in ((-9, 60), (2, 0), (-9, 60), (2, 0)):
        before = len(machine.started)
        machine.started[-1].code = code
        assert child.poll() is None
        assert len(machine.started) == before
        machine.now += pause
        assert child.poll() is None
        assert len(machine.started) == before + 1
        assert child._started_with is (OLD if code == 2 else NEW)


def test_a_child_that_refuses_the_only_settings_there_are_ends_all(machine: Machine) -> None:
    child = ChildProcess(cast("Live[Snapshot]", Files()), "receive")
    machine.started[-1].code = 2
    assert child.poll() == 2
