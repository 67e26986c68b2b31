"""The producer of the log on Kafka: idempotent, with `acks=all` and the usual partitioner (murmur2)."""

import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

from ingest.errors import LogUnavailable
from ingest.log import Record
from ingest.log.kafka.cluster import CONNECT_SECONDS, Cluster
from ingest.log.kafka_settings import LARGEST_RECORD, KafkaSettings

_DELIVERY_SECONDS = 3.5  # the receiver answers 503 after 4
_CLOSE_SECONDS = 10.0
_CHECK_OVERDUE_SECONDS = 0.25

_OPTIONS = {
    "acks": "all",
    "enable_idempotence": True,
    "compression_type": "zstd",
    "linger_ms": 0,  # 5 here would be 5 ms more for every lone delivery
    "batch_size": 64 * 1024,
    "max_request_size": LARGEST_RECORD,
    "max_block_ms": int(CONNECT_SECONDS * 1000),
    "bootstrap_timeout_ms": int(CONNECT_SECONDS * 1000),
    "request_timeout_ms": 2_500,
    "delivery_timeout_ms": 3_000,
    "metadata_max_age_ms": 60_000,
    "metrics_enabled": False,
}


class _Append:
    """Records that are appended together, and the future that their caller waits for."""

    def __init__(self, topic: str, records: Sequence[Record]) -> None:
        self.topic, self.records = topic, records
        self.future: Future[None] = Future()
        # A caller that gives up waiting cannot cancel what may already be written.
        self.future.set_running_or_notify_cancel()
        self.deadline = time.monotonic() + _DELIVERY_SECONDS
        self.producer: Any = None
        self._countdown = itertools.count(len(records) - 1, -1)  # next() is atomic, and two threads get here
        if not records:
            self.future.set_result(None)

    def acknowledge(self, _metadata: object) -> None:
        """Count one more durable record."""
        if next(self._countdown) == 0:
            with suppress(InvalidStateError):  # it was overdue, and has failed
                self.future.set_result(None)

    def fail(self, error: LogUnavailable) -> None:
        """Fail the append, unless it has an outcome already."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


class KafkaLogProducer:
    """A producer that starts without a broker, and calls kafka-python, which may block, in its own thread.

    Whatever goes wrong with an append, the next one gets a new producer of kafka-python: an idempotent one
    that lost its sequence, or had one record refused, fails all that come after it. What the old one has in
    flight may still arrive.
    """

    def __init__(self, servers: list[str], settings: KafkaSettings, topics: Sequence[str]) -> None:
        self._cluster, self._topics = Cluster(servers, settings), set(topics)
        self._waiting: queue.SimpleQueue[_Append | None] = queue.SimpleQueue()
        self._sent: deque[_Append] = deque()
        self._producer: Any = None
        self._spoiled = False
        self._closed, self._closing = False, threading.Lock()
        self._sender = threading.Thread(target=self._run, name="log-sender", daemon=True)
        self._sender.start()

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        append = _Append(topic, records)
        with self._closing:
            if self._closed:
                append.fail(LogUnavailable("the log was closed before this append; open it again"))
            else:
                self._waiting.put(append)
        return append.future

    def close(self) -> None:
        with self._closing:
            if not self._closed:
                self._waiting.put(None)
            self._closed = True
        self._sender.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        with suppress(Exception):
            self._connect()  # early; if that fails, the next append tries again and fails with the reason
        while (append := self._next()) is not None:
            self._deliver(append)
        if self._producer is not None:
            _close(self._producer)
        for append in self._sent:
            self._fail(append, KafkaTimeoutError("not acknowledged before the log was closed"))

    def _next(self) -> _Append | None:
        while True:
            self._fail_overdue()
            with suppress(queue.Empty):
                return self._waiting.get(timeout=_CHECK_OVERDUE_SECONDS if self._sent else None)

    def _fail_overdue(self) -> None:
        """Fail overdue appends: kafka-python's timeout does not run while it cannot get a producer id."""
        now = time.monotonic()
        while self._sent and (self._sent[0].future.done() or self._sent[0].deadline < now):
            append = self._sent.popleft()
            if not append.future.done():
                self._fail(append, KafkaTimeoutError(f"not acknowledged within {_DELIVERY_SECONDS} s"))

    def _deliver(self, append: _Append) -> None:
        try:
            producer = self._producer_for(append.topic)
        except Exception as error:  # noqa: BLE001  callers must get any error, and this thread must go on
            for failed in (append, *self._waiting_appends()):  # they would wait for the same failure
                self._fail(failed, error)
            return
        if (
            append.deadline < time.monotonic()
        ):  # connecting took all the time, which the new producer is not to blame for
            self._fail(append, KafkaTimeoutError(f"not connected within {_DELIVERY_SECONDS} s"))
            return
        append.producer = producer
        try:
            self._send(append)
        except Exception as error:  # noqa: BLE001  as above
            self._fail(append, error)

    def _waiting_appends(self) -> Iterator[_Append]:
        with suppress(queue.Empty):
            while (append := self._waiting.get_nowait()) is not None:
                yield append
            self._waiting.put(None)  # the end comes after these: leave it for the loop

    def _producer_for(self, topic: str) -> Any:
        if self._spoiled and self._producer is not None:
            threading.Thread(
                target=_close, args=(self._producer,), name="log-sender-before", daemon=True
            ).start()
            self._producer = None
        if self._producer is None:
            self._connect()
        if topic not in self._topics:
            self._cluster.ensure_topics([topic])
            self._topics.add(topic)
        return self._producer

    def _connect(self) -> None:
        self._cluster.ensure_topics(sorted(self._topics))
        self._producer = self._cluster.open(KafkaProducer, **_OPTIONS)
        self._spoiled = False

    def _send(self, append: _Append) -> None:
        self._sent.append(append)
        for record in append.records:
            headers = [(name, value.encode("utf-8", "replace")) for name, value in record.headers.items()]
            key = record.key.encode("utf-8", "replace")
            future = append.producer.send(append.topic, key=key, value=record.value, headers=headers)
            future.add_callback(append.acknowledge)
            future.add_errback(self._fail, append)

    def _fail(self, append: _Append, error: Exception) -> None:
        self._spoiled = self._spoiled or append.producer is self._producer
        append.fail(error if isinstance(error, LogUnavailable) else self._cluster.unavailable(error))


def _close(producer: Any) -> None:
    """Close a producer of kafka-python, and stop its thread even when records are stuck."""
    try:
        producer.close(timeout=_DELIVERY_SECONDS)
    except KafkaError:
        producer._sender.force_close()  # noqa: SLF001  there is no other way
        with suppress(KafkaError):
            producer.close(timeout=_DELIVERY_SECONDS)
