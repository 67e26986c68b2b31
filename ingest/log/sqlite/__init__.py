"""The embedded log: one SQLite file in WAL mode, durable at commit, shared by several processes.

Every topic has one partition, number 0. The next offset is kept apart from the rows, so that retention never reuses one.
"""

from ingest.log.sqlite.consumer import SqliteConsumer, backlog, extent, group_lock
from ingest.log.sqlite.producer import SqliteProducer
from ingest.log.sqlite.reader import SqliteReader

__all__ = ["SqliteConsumer", "SqliteProducer", "SqliteReader", "backlog", "extent", "group_lock"]
