"""The log the settings name, its implementation imported only when it is the one chosen."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import structlog

from ingest.log import Backlog, Consumer, Partition, Producer, Reader
from ingest.settings import Settings
from ingest.telemetry import DELETED_UNREAD

log = structlog.get_logger()


def sqlite_path(settings: Settings) -> Path | None:
    """The embedded log's file; None when the log is Kafka."""
    return Path(settings.log.removeprefix("sqlite:///")) if settings.log.startswith("sqlite:///") else None


def kafka_servers(settings: Settings) -> list[str]:
    """`kafka://a:9092,b:9092` -> the list kafka-python wants. The settings have given each broker a port."""
    return settings.log.removeprefix("kafka://").split(",")


def open_producer(settings: Settings) -> Producer:
    """Raises LogUnavailable."""
    if path := sqlite_path(settings):
        from ingest.log.sqlite import SqliteProducer

        return SqliteProducer(path)
    from ingest.log.kafka import KafkaLogProducer

    return KafkaLogProducer(kafka_servers(settings), settings.kafka, settings.topics())


def open_consumer(settings: Settings) -> Consumer:
    """Joins the group of the settings. Raises LogUnavailable."""
    if path := sqlite_path(settings):
        from ingest.log.sqlite import SqliteConsumer

        return SqliteConsumer(path, settings.consumer.group, settings.topics(), settings.log_retention)
    from ingest.log.kafka import KafkaLogConsumer

    return KafkaLogConsumer(
        kafka_servers(settings), settings.kafka, settings.consumer.group, settings.topics(), _tell_deleted
    )


def open_reader(settings: Settings, since: datetime | None, topics: Sequence[str] = ()) -> Reader:
    """Of these topics, or all, from what was appended then or later, or from the first record there is. Raises LogUnavailable."""
    chosen = topics or settings.topics()
    if path := sqlite_path(settings):
        from ingest.log.sqlite import SqliteReader

        return SqliteReader(path, chosen, since)
    from ingest.log.kafka import KafkaLogReader

    return KafkaLogReader(kafka_servers(settings), settings.kafka, chosen, since)


def read_backlog(settings: Settings) -> list[Backlog]:
    """Where the group stands, seen from outside it. Raises LogUnavailable."""
    if path := sqlite_path(settings):
        from ingest.log import sqlite

        return sqlite.backlog(path, settings.consumer.group, settings.topics())
    from ingest.log import kafka

    return kafka.backlog(kafka_servers(settings), settings.kafka, settings.consumer.group, settings.topics())


def _tell_deleted(partition: Partition, records: int) -> None:
    DELETED_UNREAD.labels(partition.topic, partition.number).inc(records)
    log.error(
        "log.deleted_unread",
        topic=partition.topic,
        partition=partition.number,
        records=records,
        why="Kafka's retention deleted them before they were loaded: reconcile as far back as the consumer was behind, and raise retention.ms",
    )
