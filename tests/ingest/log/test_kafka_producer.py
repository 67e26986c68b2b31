"""The producer of the log on Kafka: threads that poll it, and a full queue of its client."""

import threading
from concurrent.futures import Future
from contextlib import closing

import pytest
from kafka import KafkaAdminClient

from ingest.errors import LogUnavailable
from ingest.log import Record
from ingest.log.kafka import KafkaLogProducer
from ingest.log.kafka import producer as producer_module
from tests.ingest.log.harness import KafkaFixture, append, numbered, read, values
from tests.support.polling import PATIENCE, Deadline, wait_for

pytestmark = pytest.mark.kafka


@pytest.fixture
def small_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(producer_module.PRODUCER_OPTIONS, "queue.buffering.max.messages", 10)


def test_a_caller_that_polls_resolves_futures_in_its_own_thread(
    kafka_log: KafkaFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def note(_: "Future[None]") -> None:
        threads.append(threading.current_thread().name)

    with closing(kafka_log.log(kafka_log.topic).producer()) as producer:
        append(producer, kafka_log.topic, *numbered(1))
        monkeypatch.setattr(producer_module, "_TURN_SECONDS", PATIENCE)
        producer.poll()
        for number in range(1, 6):
            future = producer.append(kafka_log.topic, numbered(1, start=number))
            future.add_done_callback(note)
            deadline = Deadline("the record is acknowledged")
            while not future.done():
                deadline.check()
                producer.poll()
    # The producer's thread may have begun to wait for one of them before.
    assert threads.count(threading.current_thread().name) >= len(threads) - 1
    assert values(read(kafka_log.consumer(), 6)) == [b"%d" % number for number in range(6)]


def test_what_a_caller_no_longer_polls_for_is_resolved_all_the_same(kafka_log: KafkaFixture) -> None:
    with closing(kafka_log.log(kafka_log.topic).producer()) as producer:
        append(producer, kafka_log.topic, *numbered(1))
        producer.poll()
        append(producer, kafka_log.topic, *numbered(1, start=1))


@pytest.mark.usefixtures("small_queue")
def test_what_the_client_has_no_room_for_fails_and_holds_up_nothing(kafka_log: KafkaFixture) -> None:
    producer = kafka_log.producer()
    append(producer, kafka_log.topic, *numbered(1))
    assert isinstance(producer.append(kafka_log.topic, numbered(100)).exception(PATIENCE), LogUnavailable)
    append(producer, kafka_log.topic, Record("booking-2", b"after it"))


@pytest.mark.usefixtures("small_queue")
def test_a_failure_is_told_without_the_lock_that_other_callers_wait_for(kafka_log: KafkaFixture) -> None:
    callers_lock, is_told, is_appended = threading.RLock(), threading.Event(), threading.Event()

    def tell(_: "Future[None]") -> None:
        is_told.set()
        with callers_lock:
            pass

    def append_another(producer: KafkaLogProducer) -> None:
        producer.append(kafka_log.topic, numbered(1))
        is_appended.set()

    with (
        closing(KafkaLogProducer(kafka_log.servers, kafka_log.settings, [kafka_log.topic])) as producer,
        callers_lock,
    ):
        # The client is made in the producer's thread, which is told there that the queue is full.
        producer.append(kafka_log.topic, numbered(100)).add_done_callback(tell)
        assert is_told.wait(PATIENCE)
        threading.Thread(target=append_another, args=(producer,), daemon=True).start()
        assert is_appended.wait(PATIENCE)


def test_a_topic_that_is_deleted_while_it_is_written_to_is_made_again(kafka_log: KafkaFixture) -> None:
    producer = kafka_log.producer()
    append(producer, kafka_log.topic, *numbered(1))
    with closing(KafkaAdminClient(bootstrap_servers=kafka_log.servers)) as admin:
        admin.delete_topics([kafka_log.topic])
        wait_for(lambda: kafka_log.topic not in admin.list_topics(), "the topic is deleted")
    deadline, number = Deadline("the topic is made again"), 1
    while error := producer.append(kafka_log.topic, numbered(1, start=number)).exception(PATIENCE):
        assert isinstance(error, LogUnavailable)
        deadline.check()
        number += 1
    assert values(read(kafka_log.consumer(), 1)) == [b"%d" % number]


def test_close_answers_every_append_that_waits_for_a_broker(kafka_log: KafkaFixture) -> None:
    producer = kafka_log.unavailable_producer()
    futures = [producer.append(kafka_log.topic, numbered(1)) for _ in range(10)]
    producer.close()
    futures.append(producer.append(kafka_log.topic, numbered(1)))
    assert all(future.done() for future in futures)
    assert {type(future.exception()) for future in futures} == {LogUnavailable}
