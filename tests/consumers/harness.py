"""A consumer over a log of its own, and what tests do with it."""

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
    """Return settings of a consumer that has everything in one folder."""
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
    """Return the same settings with other values in one section."""
    return tree | {section: tree[section] | values}


class ConsumerHarness:
    """A consumer of one test.

    Two may follow each other in one folder, as one consumer that was started again.
    """

    def __init__(self, tree: Tree) -> None:
        self.settings = Settings.model_validate(tree)
        self.warehouse = Warehouse(self.settings)
        self.consumer: Consumer = self.settings.build_log().consumer()
        self.producer: Producer = self.settings.build_log().producer()
        self.loader = Loader(self.settings, self.consumer, self.producer, self.warehouse)

    def close(self) -> None:
        self.loader.close()
        self.consumer.close()
        self.producer.close()
        self.warehouse.close()

    def append(self, *events: Event) -> None:
        """Append events to the log, and return when they are durable."""
        self.append_records(TOPIC, *(event.to_record() for event in events))

    def append_records(self, topic: str, *records: Record) -> None:
        self.producer.append(topic, records).result(PATIENCE)

    def load(self, *events: Event) -> None:
        """Append events, then load until all of the log is committed, dead letters included."""
        self.append(*events)
        deadline = time.monotonic() + PATIENCE
        while self.lag():
            assert time.monotonic() < deadline, f"{self.lag()} records were not loaded within {PATIENCE} s"
            self.loader.step()

    def lag(self) -> int:
        """Return the number of records that are not committed."""
        return sum(entry.lag for entry in self.consumer.backlog())

    def lag_outside(self) -> int:
        """Return the same number, from any thread, while the loader runs."""
        return sum(entry.lag for entry in self.settings.build_log().backlog())

    def written(self, topic: str) -> int:
        """Return the number of records that were ever appended to a topic."""
        return next(entry.next for entry in self.consumer.backlog() if entry.partition.topic == topic)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        answer = query(self.settings, sql)
        return answer.dicts()

    def column(self, sql: str) -> list[Any]:
        """Return the first column of a query."""
        return [row[0] for row in query(self.settings, sql).rows]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the loader's own loop on a thread."""
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
def opened(tree: Tree) -> Iterator[ConsumerHarness]:
    """Open a consumer, and close it at the end."""
    harness = ConsumerHarness(tree)
    try:
        yield harness
    finally:
        harness.close()


def until(true: Callable[[], object], what: str) -> None:
    """Wait until a condition is true."""
    deadline, pause = time.monotonic() + PATIENCE, threading.Event()
    while not true():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        pause.wait(0.02)


class Command:
    """`ingest` as a process, with its settings in a file as users have them."""

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
        """Start a process, whose standard error `errors` returns."""
        with (self._folder / "stderr").open("a") as stderr:
            return subprocess.Popen(
                [sys.executable, "-m", "ingest", *arguments], cwd=self._folder, env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=stderr, text=True,
            )  # fmt: skip

    def errors(self) -> str:
        return (self._folder / "stderr").read_text()

    def told(self, event: str) -> int:
        """Return how often a process of this folder logged an event."""
        return self.errors().count(f'"{event}"')

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "ingest", *arguments],
            cwd=self._folder, env=self._environ, capture_output=True, text=True, timeout=PATIENCE,
            check=False,
        )  # fmt: skip

    @contextmanager
    def consuming(self) -> Iterator["subprocess.Popen[str]"]:
        """Run `ingest consume`, and kill it at the end if it still runs."""
        process = self.start("consume")
        try:
            yield process
        finally:
            process.kill()
            process.wait(PATIENCE)

    def lag(self) -> int:
        """Return the number of records that are not committed."""
        return sum(entry.lag for entry in self.settings.build_log().backlog())
