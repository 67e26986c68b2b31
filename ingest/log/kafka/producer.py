"""The producer of the log on Kafka: idempotent, with `acks=all` and the usual partitioner (murmur2).

It is a client of librdkafka, which encodes, compresses and sends records outside of Python: a record takes a
seventh of the CPU time that kafka-python needs. Topics are made with kafka-python, as everywhere here.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from kafka import errors

from ingest.errors import LogRefused, LogUnavailable
from ingest.log import Record
from ingest.log.kafka.cluster import CONNECT_SECONDS, Cluster
from ingest.log.kafka_settings import LARGEST_RECORD, KafkaSettings

_DELIVERY_SECONDS = 3.5  # the receiver answers 503 after 4
_CLOSE_SECONDS = 10.0
# How late the outcome of an append may be found. To let librdkafka wait for it instead is no choice: it waits
# by the wall clock, and where that is set back it waits longer by as much.
# https://github.com/confluentinc/librdkafka/issues/2145
_POLL_SECONDS = 0.005
_IDLE_SECONDS = 2.0
_TURN_SECONDS = 0.1  # for which the thread leaves the client to a caller that has polled it

PRODUCER_OPTIONS: dict[str, str | float | bool] = {
    "acks": "all",
    "enable.idempotence": True,
    "partitioner": "murmur2_random",
    "compression.type": "lz4",  # zstd needs a third less room, and two to three times the processor time
    "linger.ms": 0,  # callers append together what comes together; to wait for more keeps the broker idle
    "batch.size": 256 * 1024,
    "message.max.bytes": LARGEST_RECORD,
    "queue.buffering.max.kbytes": 256 * 1024,
    "socket.connection.setup.timeout.ms": int(CONNECT_SECONDS * 1000),
    "socket.timeout.ms": 3_000,
    "request.timeout.ms": 2_500,
    "message.timeout.ms": 3_000,
    "reconnect.backoff.max.ms": 1_000,
    "topic.metadata.refresh.interval.ms": 60_000,
    "socket.nagle.disable": True,
    "log_level": 0,  # what goes wrong is in the error of an append
}


class _Append:
    """Records that are appended together, and the future that their caller waits for."""

    def __init__(self, topic: str, records: Sequence[Record]) -> None:
        self.topic, self.records = topic, records
        self.future: Future[None] = Future()
        # A caller that gives up waiting cannot cancel what may already be written.
        self.future.set_running_or_notify_cancel()
        self.deadline = time.monotonic() + _DELIVERY_SECONDS
        self.client: Producer | None = None
        self._countdown = itertools.count(len(records) - 1, -1)  # next() is atomic, and two threads get here
        if not records:
            self.future.set_result(None)

    def acknowledge(self) -> None:
        """Count one more durable record."""
        if next(self._countdown) == 0:
            with suppress(InvalidStateError):  # it was overdue, and has failed
                self.future.set_result(None)

    def fail(self, error: LogUnavailable) -> None:
        """Fail the append, unless it has an outcome already."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


class KafkaLogProducer:
    """A producer that starts without a broker, and connects in a thread of its own.

    Whatever goes wrong with an append, the next one gets a new client, with certificates and topics as they
    are then; only a record that is too large is no fault of the client. What the old client has in flight may
    still arrive.
    """

    def __init__(self, servers: list[str], settings: KafkaSettings, topics: Sequence[str]) -> None:
        self._cluster, self._topics = Cluster(servers, settings), set(topics)
        self._lock = threading.RLock()  # a future may be resolved by the thread that appends
        self._waiting: deque[_Append] = deque()  # until there is a client, and their topic exists
        self._sent: deque[_Append] = deque()
        self._client: Producer | None = None
        self._client_error = ""
        self._has_work = threading.Event()
        self._polled_until = 0.0  # until when a caller may be expected to poll again
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log-producer", daemon=True)
        self._thread.start()

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        append = _Append(topic, records)
        error: LogUnavailable | None = None
        must_wake = True
        with self._lock:
            if self._closed:
                error = LogUnavailable("the log was closed before this append; open it again")
            elif self._client is None or self._waiting or topic not in self._topics:
                self._waiting.append(append)
            else:
                error = self._send(self._client, append)
                must_wake = not self._is_polled()  # to wake a thread takes longer than to append
        if error is not None:
            self._fail(append, error)
        if must_wake:
            self._has_work.set()
        return append.future

    def poll(self) -> None:
        client = self._client
        if client is not None:
            was_polled, self._polled_until = self._is_polled(), time.monotonic() + _TURN_SECONDS
            if not was_polled:
                self._has_work.set()  # so that the thread notices soon when nobody polls any more
            client.poll(0)
            self._fail_overdue()

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._has_work.set()
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        with suppress(Exception):
            self._connect()  # early; if that fails, the next append tries again and fails with the reason
        while not self._closed or self._waiting or self._sent:
            self._send_waiting()
            if self._is_polled():
                self._has_work.wait(_TURN_SECONDS)
            else:
                client = self._client  # a failed append takes it away in another thread
                if client is not None:
                    client.poll(0)  # calls back for each record that has an outcome
                self._has_work.wait(_POLL_SECONDS if self._sent else _IDLE_SECONDS)
            self._has_work.clear()
            self._fail_overdue()

    def _is_polled(self) -> bool:
        return self._polled_until > time.monotonic()

    def _send_waiting(self) -> None:
        """Send the appends that waited, or fail them all for the reason that none can be sent."""
        while self._waiting:
            try:
                client = self._client or self._connect()
                if (topic := self._waiting[0].topic) not in self._topics:
                    self._cluster.ensure_topics([topic])
                    self._topics.add(topic)
            except Exception as error:  # noqa: BLE001  callers must get any error, and this thread must go on
                failure = error if isinstance(error, LogUnavailable) else self._cluster.unavailable(error)
                with self._lock:
                    failed = list(self._waiting)
                    self._waiting.clear()
                for append in failed:
                    append.fail(failure)
                return
            with self._lock:
                append = self._waiting.popleft()
                is_overdue = append.deadline <= time.monotonic()
                refusal = None if is_overdue else self._send(client, append)
            if is_overdue:  # which the client is not to blame for
                append.fail(self._overdue(f"within {_DELIVERY_SECONDS} s, which it took to connect"))
            elif refusal is not None:
                self._fail(append, refusal)

    def _connect(self) -> Producer:
        self._cluster.ensure_topics(sorted(self._topics))
        client = Producer(
            self._cluster.librdkafka_options() | PRODUCER_OPTIONS, error_cb=self._note_client_error
        )
        with self._lock:
            self._client, self._client_error = client, ""
        return client

    def _note_client_error(self, error: KafkaError) -> None:
        self._client_error = error.str()

    def _send(self, client: Producer, append: _Append) -> LogUnavailable | None:
        """Give an append to the client, which does not block, and return the error if that fails.

        The caller holds the lock, and fails the append without it: whoever waits for the append may hold a
        lock that another caller of this producer has, too.
        """
        append.client = client
        self._sent.append(append)
        on_delivery = partial(self._on_delivery, append)
        records, append.records = append.records, ()  # the client has copies
        try:
            for record in records:
                key = record.key
                headers: dict[str, str | bytes | None] = {**record.headers}
                try:
                    client.produce(append.topic, record.value, key, headers=headers, on_delivery=on_delivery)
                except UnicodeEncodeError:
                    raw_key, raw_headers = encode(record)
                    client.produce(
                        append.topic, record.value, raw_key, headers=raw_headers, on_delivery=on_delivery
                    )
        except BufferError as error:
            return self._cluster.unavailable(error)
        except KafkaException as error:
            return self._translated(error.args[0])
        return None

    def _on_delivery(self, append: _Append, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            append.acknowledge()
        else:
            self._fail(append, self._translated(error))

    def _fail_overdue(self) -> None:
        """Fail overdue appends: librdkafka looks at its own time limit only once a second."""
        now = time.monotonic()
        ended = []
        with self._lock:
            while self._sent and (self._sent[0].future.done() or self._sent[0].deadline < now):
                ended.append(self._sent.popleft())
        for append in ended:
            if not append.future.done():
                self._fail(append, self._overdue(f"within {_DELIVERY_SECONDS} s"))

    def _fail(self, append: _Append, error: LogUnavailable) -> None:
        with self._lock:
            client = self._client
            if client is not None and client is append.client and not isinstance(error, LogRefused):
                self._client = None
                flush = threading.Thread(
                    target=client.flush, args=(_DELIVERY_SECONDS,), name="log-producer-before", daemon=True
                )
                with suppress(RuntimeError):  # no thread can be started: its other appends are overdue soon
                    flush.start()
        append.fail(error)

    def _translated(self, error: KafkaError) -> LogUnavailable:
        if error.code() == KafkaError._MSG_TIMED_OUT:  # noqa: SLF001 - which is its public name
            return self._overdue("in time")
        return self._cluster.unavailable_to_librdkafka(error)

    def _overdue(self, limit: str) -> LogUnavailable:
        reason = f": {self._client_error}" if self._client_error else ""
        return self._cluster.unavailable(errors.KafkaTimeoutError(f"not acknowledged {limit}{reason}"))


def encode(record: Record) -> tuple[bytes, list[tuple[str, str | bytes | None]]]:
    """Return a record's key and headers as bytes."""
    try:
        return record.key.encode(), [(name, value.encode()) for name, value in record.headers.items()]
    except UnicodeEncodeError:  # for half a surrogate pair
        return record.key.encode("utf-8", "replace"), [
            (name, value.encode("utf-8", "replace")) for name, value in record.headers.items()
        ]
