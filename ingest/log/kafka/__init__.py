"""The log on Apache Kafka. Nothing outside this package uses kafka-python."""

from ingest.log.kafka.consumer import KafkaLogConsumer, backlog
from ingest.log.kafka.producer import KafkaLogProducer
from ingest.log.kafka.reader import KafkaLogReader

__all__ = ["KafkaLogConsumer", "KafkaLogProducer", "KafkaLogReader", "backlog"]
