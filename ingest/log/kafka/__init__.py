"""The log on Apache Kafka; nothing outside this package knows kafka-python."""

from ingest.log.kafka.consumer import KafkaLogConsumer, backlog
from ingest.log.kafka.producer import KafkaLogProducer
from ingest.log.kafka.reader import KafkaLogReader

__all__ = ["KafkaLogConsumer", "KafkaLogProducer", "KafkaLogReader", "backlog"]
