"""Transactions that append to the feed of changes and commit a group's offsets: both, or neither.

A consumer that was frozen while others went on with its partitions cannot append older states after their
newer ones: brokers refuse its offsets, because its generation of the group is over, and its transaction is
aborted. What readers see of the feed is what was committed, in the order of the offsets.
https://cwiki.apache.org/confluence/display/KAFKA/KIP-447%3A+Producer+scalability+for+exactly+once+semantics
"""

import struct
import threading
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from contextlib import suppress
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition
from kafka import OffsetAndMetadata, errors
from kafka import TopicPartition as ConsumedPartition

from ingest.errors import CommitFailed, LogDenied
from ingest.log import Record
from ingest.log.kafka.cluster import COMPACTED, Cluster
from ingest.log.kafka.producer import PRODUCER_OPTIONS, encode
from ingest.threads import run_in_thread

_ANSWER_SECONDS = 10.0
# Of a whole transaction, by a clock that never jumps. librdkafka waits by the wall clock: where that is set
# back, it waits longer by as much. https://github.com/confluentinc/librdkafka/issues/2145
_TRANSACTION_SECONDS = 45.0
_ROOM_SECONDS = 0.1
_NO_GENERATION = -1
_OPTIONS: dict[str, str | int | bool] = {
    # A transaction that its consumer left open is aborted after that, and readers wait for it until then: as
    # long as the group waits for the consumer.
    "transaction.timeout.ms": 10_000,
    "message.timeout.ms": 8_000,
    "linger.ms": 5,
}
# The consumer is no longer the one whose offsets the group takes.
_FENCED = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError._FENCED,  # noqa: SLF001 - which is its public name
}


class FeedTransactions:
    """The transactions of one consumer. It connects with the first one, and anew after one that failed."""

    def __init__(self, cluster: Cluster, group: str, topic: str) -> None:
        self._cluster, self._topic = cluster, topic
        # Its own, not that of the consumer before: generations of the group keep those two apart.
        self._id = f"{group}.{uuid.uuid4().hex[:12]}"
        self._client: Producer | None = None

    def commit(
        self,
        changes: Sequence[Record],
        offsets: Mapping[ConsumedPartition, OffsetAndMetadata],
        member: Any,
    ) -> None:
        """Append changes, and commit offsets for a member of the group, given by its `group_metadata()`.

        Raises CommitFailed, OffsetMetadataTooLargeError, and LogUnavailable when the outcome is not certain.
        """
        if member.generation_id == _NO_GENERATION:  # which brokers would not compare
            raise CommitFailed("the group is just continuing without this consumer")
        client, self._client = self._client, None  # kept only when the transaction succeeds
        given_up = threading.Event()

        def carry_out() -> Producer:
            connected = client or self._connect(given_up)
            try:
                self._transact(connected, changes, offsets, member)
            except BaseException:
                _abort(connected)
                raise
            return connected

        transaction = run_in_thread(carry_out, "feed-transaction")
        if not wait([transaction], _TRANSACTION_SECONDS).done:
            given_up.set()
            raise self._cluster.unavailable(
                errors.KafkaTimeoutError(f"a transaction did not end within {_TRANSACTION_SECONDS:.0f} s")
            )
        try:
            self._client = transaction.result()
        except KafkaException as failure:
            raise self._translated(failure) from failure

    def close(self) -> None:
        """End the connection. An open transaction is aborted."""
        client, self._client = self._client, None
        if client is not None:
            wait([run_in_thread(partial(_abort, client), "feed-transaction")], _TRANSACTION_SECONDS)

    def _connect(self, given_up: threading.Event) -> Producer:
        """Return a client, whose connection ends what an earlier one left open.

        Raises KafkaException when the transaction for which it connects was given up meanwhile: as the newest
        client it would be taken for the right one, and what it appends is older than what others have.
        """
        self._cluster.ensure_topics([self._topic], COMPACTED)
        client = Producer(
            self._cluster.librdkafka_options() | PRODUCER_OPTIONS | _OPTIONS | {"transactional.id": self._id}
        )
        if not given_up.is_set():
            client.init_transactions(_ANSWER_SECONDS)
        if given_up.is_set():
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001 - which is its public name
        return client

    def _transact(
        self,
        client: Producer,
        changes: Sequence[Record],
        offsets: Mapping[ConsumedPartition, OffsetAndMetadata],
        member: Any,
    ) -> None:
        refusals: list[KafkaError] = []
        client.begin_transaction()
        for record in changes:
            self._produce(client, record, refusals)
        client.flush(_ANSWER_SECONDS)
        if refusals:
            raise KafkaException(refusals[0])
        positions = [
            TopicPartition(partition.topic, partition.partition, position.offset, position.metadata)
            for partition, position in offsets.items()
        ]
        client.send_offsets_to_transaction(positions, group_metadata(member), _ANSWER_SECONDS)
        client.commit_transaction(_ANSWER_SECONDS)

    def _produce(self, client: Producer, record: Record, refusals: list[KafkaError]) -> None:
        """Give a record to the client, which adds it to the transaction and notes a refusal later."""

        def note_refusal(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                refusals.append(error)

        key, headers = encode(record)
        while True:
            try:
                client.produce(self._topic, record.value, key, headers=headers, on_delivery=note_refusal)
            except BufferError:  # as much is on its way as the client holds
                client.poll(_ROOM_SECONDS)
            else:
                return

    def _translated(self, failure: KafkaException) -> Exception:
        error: KafkaError = failure.args[0]
        if error.code() in _FENCED:
            return CommitFailed(
                f"the group continued without this consumer; others read its records again ({error.str()})"
            )
        if error.code() == KafkaError.OFFSET_METADATA_TOO_LARGE:
            too_large: Exception = errors.OffsetMetadataTooLargeError(error.str())
            return too_large
        if error.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            return LogDenied(
                f"Kafka at {self._cluster.address}: the right to transactions is missing: grant WRITE on the"
                f" transactional ids that begin with {self._id.rpartition('.')[0]}"
            )
        return self._cluster.unavailable_to_librdkafka(error)


def _abort(client: Producer) -> None:
    """Abort a client's transaction, or leave that to the next client."""
    with suppress(KafkaException):
        client.abort_transaction(_ANSWER_SECONDS)


def group_metadata(member: Any) -> bytes:
    """Return a member of a group, as kafka-python tells of it, in the form in which librdkafka takes it.

    That form is librdkafka's own; a test compares it with that of a consumer of librdkafka.
    """
    parts = (member.group_id, member.member_id)
    texts = b"".join(part.encode() + b"\0" for part in parts)
    return b"CGMDv2:" + struct.pack("=i", member.generation_id) + texts + b"\1"
