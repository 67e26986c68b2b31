"""A consumer over a log of its own, and what tests do with it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from consumers.loader import Loader
from consumers.warehouse import Warehouse
from ingest.event import Event
from ingest.log import Consumer, Producer, Record
from ingest.settings import Settings
from ingest.warehouse.query import query
from tests.consumers.samples import TOPIC
from tests.support.polling import PATIENCE, Deadline
from tests.support.settings import Tree


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
        deadline = Deadline("all records are loaded")
        while self.lag():
            deadline.check()
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
def open_consumer(tree: Tree) -> Iterator[ConsumerHarness]:
    """Open a consumer, and close it at the end."""
    harness = ConsumerHarness(tree)
    try:
        yield harness
    finally:
        harness.close()
