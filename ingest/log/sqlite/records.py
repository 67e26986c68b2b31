"""The records of the embedded log as rows of its tables."""

import json
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from itertools import chain

import orjson

from ingest.log import Partition, Record, StoredRecord

_RECORDS = """
SELECT offset, key, value, headers, appended_at FROM records
WHERE topic = ? AND offset >= ? AND offset < ? ORDER BY offset LIMIT ?
"""
# How many rows a statement may insert; the last is 1. Each statement releases Python's lock, and then waits
# for it while another thread runs.
_INSERTED_TOGETHER = (64, 16, 4, 1)


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


def insert_records(connection: sqlite3.Connection, topic: str, records: Sequence[Record]) -> int:
    """Append records within a transaction, and return the offset after them. Raises sqlite3.Error."""
    after_last: int = connection.execute(
        "INSERT INTO topics VALUES (?, ?) ON CONFLICT DO UPDATE SET next_offset = next_offset +"
        " excluded.next_offset RETURNING next_offset",
        (topic, len(records)),
    ).fetchone()[0]
    now = time.time()
    rows = []
    for offset, record in enumerate(records, start=after_last - len(records)):
        try:
            headers = orjson.dumps(record.headers, default=dict).decode()
        except orjson.JSONEncodeError:  # for half a surrogate pair
            headers = json.dumps(dict(record.headers))
        rows.append((topic, offset, record.key, record.value, headers, now))
    start = 0
    for count in _INSERTED_TOGETHER:
        while start + count <= len(rows):
            connection.execute(_insertion(count), [*chain.from_iterable(rows[start : start + count])])
            start += count
    return after_last


@cache
def _insertion(count: int) -> str:
    """Return the statement that inserts so many rows."""
    return f"INSERT INTO records VALUES {', '.join(['(?, ?, ?, ?, ?, ?)'] * count)}"  # noqa: S608 - no input
