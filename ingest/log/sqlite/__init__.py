"""The embedded log: one SQLite file in WAL mode, durable at commit, which several processes share.

Every topic has one partition, number 0. The next offset is stored apart from the records, so that none is
used twice after retention.
"""

from ingest.log.sqlite.consumer import SqliteConsumer, group_lock
from ingest.log.sqlite.producer import SqliteProducer
from ingest.log.sqlite.reader import SqliteReader, backlog, extent

__all__ = ["SqliteConsumer", "SqliteProducer", "SqliteReader", "backlog", "extent", "group_lock"]
