"""The client that fetches from Kafka: limits, positions, errors and clocks, without a broker."""

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError
from kafka import TopicPartition
from structlog.testing import capture_logs

from ingest.errors import LogDenied, LogUnavailable
from ingest.log.kafka import fetcher as fetcher_module
from ingest.log.kafka.cluster import Cluster
from ingest.log.kafka.fetcher import Fetcher
from ingest.log.kafka_settings import KafkaSettings

FIRST, SECOND = TopicPartition("bookings.calendly", 0), TopicPartition("bookings.calendly", 1)


class Message:
    """A message of librdkafka, or an error that it returns as one."""

    def __init__(
        self, partition: TopicPartition, offset: int, error: int | None = None, epoch: int = 3
    ) -> None:
        self._partition, self._offset, self._error, self._epoch = partition, offset, error, epoch

    def __len__(self) -> int:
        return 97

    def error(self) -> KafkaError | None:
        return None if self._error is None else KafkaError(self._error)

    def topic(self) -> str:
        return str(self._partition.topic)

    def partition(self) -> int:
        return int(self._partition.partition)

    def offset(self) -> int:
        return self._offset

    def leader_epoch(self) -> int:
        return self._epoch

    def timestamp(self) -> tuple[int, int]:
        return 2, 1500

    def key(self) -> bytes:
        return b"key"

    def value(self) -> bytes:
        return b"x" * 97

    def headers(self) -> list[tuple[str, bytes]] | None:
        return None


class Client:
    """A client with these messages, which it returns whatever is assigned. It must not be asked to wait."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self.messages = list(messages)
        self.assigned: list[dict[TopicPartition, int]] = []
        self.on_error: Callable[[KafkaError], None]
        self.is_closed = False

    def assign(self, positions: Iterable[Any]) -> None:
        self.assigned.append({TopicPartition(at.topic, at.partition): at.offset for at in positions})

    def consume(self, count: int, seconds: float) -> list[Message]:
        assert seconds == 0
        taken, self.messages = self.messages[:count], self.messages[count:]
        return taken

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[Client]:
    """Return the clients that are made next, of which the last one is the first."""
    waiting: list[Client] = []

    def build(_options: dict[str, Any], error_cb: Callable[[KafkaError], None]) -> Client:
        client = waiting.pop()
        client.on_error = error_cb
        return client

    monkeypatch.setattr(fetcher_module, "Consumer", build)
    return waiting


@pytest.fixture
def fetcher() -> Fetcher:
    """Return a fetcher of one partition from offset 5 on."""
    fetcher = Fetcher(Cluster(["127.0.0.1:1"], KafkaSettings()), "group")
    fetcher.assign([FIRST], {FIRST: 5})
    return fetcher


def messages(partition: TopicPartition, *offsets: int) -> list[Message]:
    return [Message(partition, offset) for offset in offsets]


def offsets(fetcher: Fetcher, limit: int = 100, max_bytes: int = 1_000_000) -> list[int]:
    return [stored.offset for run in fetcher.fetch(limit, max_bytes).values() for stored in run.records]


def test_records_come_by_partition_with_their_leader_epoch(fetcher: Fetcher, clients: list[Client]) -> None:
    clients.append(Client([Message(FIRST, 5), Message(SECOND, 9), Message(FIRST, 7)]))
    runs = fetcher.fetch(100, 1_000_000)
    assert {partition: [stored.offset for stored in run.records] for partition, run in runs.items()} == {
        FIRST: [5, 7],
        SECOND: [9],
    }
    assert runs[FIRST].epoch == 3
    assert runs[FIRST].records[0].timestamp == 1.5


@pytest.mark.parametrize(("limit", "max_bytes"), [(2, 1_000_000), (100, 101), (100, 200)])
def test_what_does_not_fit_is_returned_next(
    fetcher: Fetcher, clients: list[Client], limit: int, max_bytes: int
) -> None:
    clients.append(Client(messages(FIRST, 5, 6, 7)))
    assert offsets(fetcher, limit, max_bytes) == [5, 6]
    assert offsets(fetcher) == [7]


@pytest.mark.parametrize("after", [Message(FIRST, 7, epoch=4), Message(FIRST, 5), Message(FIRST, 6)])
def test_records_of_a_log_that_may_have_been_cut_meanwhile_are_returned_next(
    fetcher: Fetcher, clients: list[Client], after: Message
) -> None:
    clients.append(Client([*messages(FIRST, 5, 6), after]))
    assert offsets(fetcher) == [5, 6]
    assert offsets(fetcher) == [after.offset()]


def test_what_keeps_the_client_from_connecting_is_logged_now_and_then(
    fetcher: Fetcher, clients: list[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, now = Client([]), [10.0]
    clients.append(client)
    monkeypatch.setattr(fetcher_module, "time", SimpleNamespace(time=lambda: 0.0, monotonic=lambda: now[-1]))
    fetcher.fetch(100, 1_000_000)
    with capture_logs() as lines:
        for seconds, code in [
            (10.0, KafkaError._TRANSPORT),
            (10.0, KafkaError._SSL),
            (11.0, KafkaError._ALL_BROKERS_DOWN),
            (99.0, KafkaError._AUTHENTICATION),
        ]:
            now.append(seconds)
            client.on_error(KafkaError(code, f"because of {code}"))
    assert [(line["event"], line["why"]) for line in lines] == [
        ("log.cannot_fetch", f"because of {code}") for code in (KafkaError._SSL, KafkaError._AUTHENTICATION)
    ]


def test_to_go_back_forgets_what_has_come(fetcher: Fetcher, clients: list[Client]) -> None:
    client = Client(messages(FIRST, 5, 6, 7))
    clients.append(client)
    assert offsets(fetcher, max_bytes=1) == [5]
    fetcher.seek({FIRST: 6})  # where it is
    assert offsets(fetcher, max_bytes=1) == [6]
    assert client.assigned == [{FIRST: 5}]
    fetcher.seek({FIRST: 5, SECOND: 1})
    client.messages = messages(FIRST, 5, 6)
    assert offsets(fetcher) == [5, 6]
    assert client.assigned == [{FIRST: 5}, {FIRST: 5}]


def test_a_partition_that_comes_has_its_own_offset_and_others_stay(
    fetcher: Fetcher, clients: list[Client]
) -> None:
    client = Client(messages(FIRST, 5, 6))
    clients.append(client)
    assert offsets(fetcher) == [5, 6]
    fetcher.assign([FIRST, SECOND], {SECOND: 40})
    assert offsets(fetcher) == []
    fetcher.assign([SECOND], {})
    assert offsets(fetcher) == []
    assert client.assigned == [{FIRST: 5}, {FIRST: 7, SECOND: 40}, {SECOND: 40}]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (KafkaError._BAD_MSG, LogUnavailable),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, LogDenied),
        (KafkaError._UNKNOWN_PARTITION, LogUnavailable),
    ],
)
def test_after_an_error_a_new_client_continues_where_the_other_one_was(
    fetcher: Fetcher, clients: list[Client], code: int, error: type[LogUnavailable]
) -> None:
    broken = Client([*messages(FIRST, 5, 6), Message(FIRST, 7, code), *messages(FIRST, 8)])
    whole = Client(messages(FIRST, 7, 8))
    clients += [whole, broken]
    assert offsets(fetcher) == [5, 6]
    with pytest.raises(error):
        fetcher.fetch(100, 1_000_000)
    assert broken.is_closed
    assert offsets(fetcher) == [7, 8]
    assert whole.assigned == [{FIRST: 7}]


def test_what_there_is_no_memory_for_is_fetched_again(
    fetcher: Fetcher, clients: list[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_message: Message) -> bytes:
        raise MemoryError

    client = Client(messages(FIRST, 5, 6))
    clients.append(client)
    with monkeypatch.context() as patch:
        patch.setattr(Message, "value", fail)
        with pytest.raises(MemoryError):
            fetcher.fetch(100, 1_000_000)
    client.messages = messages(FIRST, 5, 6)
    assert offsets(fetcher) == [5, 6]
    assert client.assigned == [{FIRST: 5}, {FIRST: 5}]


def test_after_the_clock_was_set_back_a_new_client_takes_the_place_of_one_that_may_wait_long(
    fetcher: Fetcher, clients: list[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = [1000.0]
    monkeypatch.setattr(
        fetcher_module, "time", SimpleNamespace(time=lambda: wall[-1], monotonic=lambda: 10.0)
    )
    waiting, prompt = Client(messages(FIRST, 5)), Client(messages(FIRST, 6))
    clients += [prompt, waiting]
    assert offsets(fetcher) == [5]
    for seconds in (4600.0, 4599.9):  # ahead, and slewed
        wall.append(seconds)
        assert offsets(fetcher) == []
    wall.append(1000.0)
    assert offsets(fetcher) == [6]
    assert waiting.is_closed
    assert prompt.assigned == [{FIRST: 6}]
