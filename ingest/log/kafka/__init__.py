"""The log on Apache Kafka; nothing outside this package knows kafka-python."""

from ingest.log.kafka.consumer import KafkaLogConsumer, backlog
from ingest.log.kafka.producer import KafkaLogProducer

__all__ = ["KafkaLogConsumer", "KafkaLogProducer", "backlog"]
