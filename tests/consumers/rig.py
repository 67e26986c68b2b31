"""A loader over a log of its own, and what tests do with it."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomlkit

from consumers.loader import Loader
from consumers.warehouse import Warehouse
from ingest.event import Event
from ingest.log import Consumer, Producer, Record
from ingest.settings import Settings
from ingest.warehouse.query import query
from tests.consumers.samples import TOPIC

PATIENCE = 60.0  # long, for a slow machine; a test that passes never waits for it
ROOT = Path(__file__).parents[2]

Tree = dict[str, Any]


def tree_for(folder: Path, **consumer: Any) -> Tree:
    """Settings of a consumer that has everything in this folder."""
    return {
        "log": f"sqlite:///{folder}/log.db",
        "consumer": {"linger": "10ms", "admin_port": 0, **consumer},
        "warehouse": {
            "destination": "duckdb",
            "credentials": f"{folder}/warehouse.duckdb",
            "work_dir": f"{folder}/dlt",
        },
    }


def changed(tree: Tree, section: str, **values: Any) -> Tree:
    """The same settings but for these of one section."""
    return tree | {section: tree[section] | values}


class Rig:
    """Opened for one test; two may follow each other in one folder, as one consumer that was started again."""

    def __init__(self, tree: Tree) -> None:
        self.settings = Settings.model_validate(tree)
        self.warehouse = Warehouse(self.settings)
        self.consumer: Consumer = self.settings.build_log().consumer()
        self.producer: Producer = self.settings.build_log().producer()
        self.loader = Loader(self.settings, self.consumer, self.producer, self.warehouse)

    def close(self) -> None:
        self.consumer.close()
        self.producer.close()
        self.warehouse.close()

    def append(self, *events: Event) -> None:
        """Returns when they are durable in the log."""
        self.append_records(TOPIC, *(event.to_record() for event in events))

    def append_records(self, topic: str, *records: Record) -> None:
        self.producer.append(topic, records).result(PATIENCE)

    def load(self, *events: Event) -> None:
        """Appends these, then loads until all that is in the log is committed, dead letters included."""
        self.append(*events)
        deadline = time.monotonic() + PATIENCE
        while self.lag():
            assert time.monotonic() < deadline, f"{self.lag()} records were not loaded within {PATIENCE} s"
            self.loader.step()

    def lag(self) -> int:
        """Records that are not committed."""
        return sum(entry.lag for entry in self.consumer.backlog())

    def lag_outside(self) -> int:
        """The same, from any thread, while the loader runs."""
        return sum(entry.lag for entry in self.settings.build_log().backlog())

    def written(self, topic: str) -> int:
        """Records ever appended to a topic."""
        return next(entry.next for entry in self.consumer.backlog() if entry.partition.topic == topic)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        answer = query(self.settings, sql)
        return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]

    def column(self, sql: str) -> list[Any]:
        """The first column of a query."""
        return [row[0] for row in query(self.settings, sql).rows]

    @contextmanager
    def running(self) -> Iterator[None]:
        """The loader's own loop, on a thread."""
        stop = threading.Event()
        thread = threading.Thread(target=self.loader.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(PATIENCE)
            assert not thread.is_alive()


@contextmanager
def opened(tree: Tree) -> Iterator[Rig]:
    """Closed at the end, whatever happens."""
    rig = Rig(tree)
    try:
        yield rig
    finally:
        rig.close()


def until(true: Callable[[], object], what: str) -> None:
    """Looks again and again, a little at a time."""
    deadline, pause = time.monotonic() + PATIENCE, threading.Event()
    while not true():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        pause.wait(0.02)


class Command:
    """`ingest` as a process, with settings in a file as users have them."""

    def __init__(self, folder: Path, tree: Tree, **environ: str) -> None:
        self._folder = folder
        (folder / "ingest.toml").write_text(tomlkit.dumps(tree))
        self._environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "INGEST_CONFIG": str(folder / "ingest.toml"),
            **environ,
        }
        self.settings = Settings.model_validate(tree)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Standard error goes where `errors` finds it."""
        with (self._folder / "stderr").open("a") as stderr:
            return subprocess.Popen(
                [sys.executable, "-m", "ingest", *arguments], cwd=self._folder, env=self._environ, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=stderr, text=True,
            )  # fmt: skip

    def errors(self) -> str:
        return (self._folder / "stderr").read_text()

    def told(self, event: str) -> int:
        """How often a process of this folder logged it."""
        return self.errors().count(f'"{event}"')

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "ingest", *arguments],
            cwd=self._folder, env=self._environ, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    @contextmanager
    def consuming(self) -> Iterator["subprocess.Popen[str]"]:
        """`ingest consume`, killed at the end if it still runs."""
        process = self.start("consume")
        try:
            yield process
        finally:
            process.kill()
            process.wait(PATIENCE)

    def lag(self) -> int:
        """Records that are not committed, seen from outside."""
        return sum(entry.lag for entry in self.settings.build_log().backlog())
