"""Clients of librdkafka that hang, as they do after a clock was set back."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from ingest.errors import LogUnavailable
from ingest.log import Record
from ingest.log.kafka import KafkaLogProducer
from ingest.log.kafka.cluster import Cluster
from ingest.log.kafka.transactions import FeedTransactions
from ingest.log.kafka_settings import KafkaSettings
from tests.support.polling import PATIENCE, wait_for

MEMBER = SimpleNamespace(group_id="group", member_id="member", generation_id=1)
TOPIC = "bookings.calendly"


class Client:
    """A client that does all it is asked to, except for the method in `hanging`, which waits for its end."""

    def __init__(self, hanging: str, end: threading.Event) -> None:
        self._hanging, self._end = hanging, end
        self.called: list[str] = []

    def __getattr__(self, method: str) -> Callable[..., Any]:
        self.called.append(method)
        return lambda *_, **__: self._end.wait(PATIENCE) if method == self._hanging else 0

    def poll(self, seconds: float) -> int:
        """Hang when there is a time to wait for."""
        return int(seconds > 0 and self._end.wait(PATIENCE))


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Client]]:
    """Return the clients that the log makes next, of which it takes the last one first.

    What hangs is ended after the test.
    """
    end = threading.Event()
    waiting = [Client("nothing", end), Client("nothing", end)]
    for module in ("producer", "transactions"):
        monkeypatch.setattr(f"ingest.log.kafka.{module}.Producer", lambda *_, **__: waiting.pop())
    monkeypatch.setattr(Cluster, "ensure_topics", lambda *_: None)
    yield waiting
    end.set()


@pytest.mark.parametrize(
    "method", ["init_transactions", "flush", "send_offsets_to_transaction", "commit_transaction"]
)
def test_a_transaction_that_hangs_is_given_up_and_the_next_one_has_a_new_client(
    clients: list[Client], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients[-1]._hanging = method
    transactions = FeedTransactions(Cluster(["127.0.0.1:1"], KafkaSettings()), "group", "feed")
    with closing(transactions):
        with monkeypatch.context() as patch:
            patch.setattr("ingest.log.kafka.transactions._TRANSACTION_SECONDS", 0.1)
            with pytest.raises(LogUnavailable, match="did not end"):
                transactions.commit([Record("booking-1", b"")], {}, MEMBER)
        transactions.commit([Record("booking-1", b"")], {}, MEMBER)
    assert not clients


def test_a_transaction_that_was_given_up_while_it_connected_appends_nothing_later(
    clients: list[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    late = clients[-1]
    late._hanging = "init_transactions"
    transactions = FeedTransactions(Cluster(["127.0.0.1:1"], KafkaSettings()), "group", "feed")
    with monkeypatch.context() as patch:
        patch.setattr("ingest.log.kafka.transactions._TRANSACTION_SECONDS", 0.1)
        with pytest.raises(LogUnavailable, match="did not end"):
            transactions.commit([Record("booking-1", b"older")], {}, MEMBER)
    transactions.commit([Record("booking-1", b"newer")], {}, MEMBER)
    late._end.set()
    wait_for(
        lambda: not any(thread.name == "feed-transaction" for thread in threading.enumerate()),
        "what was given up has ended",
    )
    assert late.called == ["init_transactions"]


def test_an_append_fails_in_time_while_the_client_would_hang(clients: list[Client]) -> None:
    with closing(KafkaLogProducer(["127.0.0.1:1"], KafkaSettings(), [TOPIC])) as producer:
        for _ in range(2):
            future = producer.append(TOPIC, [Record("booking-1", b"")])
            assert isinstance(future.exception(PATIENCE / 2), LogUnavailable)
    assert not clients
