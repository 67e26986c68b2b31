"""Queries that several parts of the embedded log need."""

import json
import sqlite3
from contextlib import closing

from ingest.log import Partition, Record, StoredRecord

_RECORDS = """
SELECT offset, key, value, headers, appended_at FROM records
WHERE topic = ? AND offset >= ? AND offset < ? ORDER BY offset LIMIT ?
"""


def next_offsets(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the next offset to be written in each topic. Raises sqlite3.Error."""
    return dict(connection.execute("SELECT topic, next_offset FROM topics").fetchall())


def read_records(
    connection: sqlite3.Connection, topic: str, offsets: range, limit: int, max_bytes: int
) -> list[StoredRecord]:
    """Return up to `limit` records, which have `max_bytes` together and one record more.

    Raises sqlite3.Error.
    """
    records: list[StoredRecord] = []
    size = 0
    with closing(connection.execute(_RECORDS, (topic, offsets.start, offsets.stop, limit))) as rows:
        for offset, key, value, headers, appended_at in rows:
            records.append(
                StoredRecord(Record(key, value, json.loads(headers)), Partition(topic), offset, appended_at)
            )
            size += records[-1].record.size
            if size >= max_bytes:
                break
    return records
