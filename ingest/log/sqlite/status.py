"""The state of the embedded log, seen from outside its consumers."""

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from ingest.log import Backlog, Partition
from ingest.log.sqlite.file import read_only, unavailable
from ingest.log.sqlite.queries import next_offsets

_APPENDED_AT = """
SELECT MIN(appended_at) FROM (
  SELECT appended_at FROM records WHERE topic = ? AND offset >= ? ORDER BY offset LIMIT 1000
)
"""
_OLDEST = """
SELECT (SELECT appended_at FROM records WHERE records.topic = topics.topic ORDER BY offset LIMIT 1) AS first
FROM topics WHERE first IS NOT NULL ORDER BY first LIMIT 1
"""


def backlog(path: Path, group: str, topics: Sequence[str] | None = None) -> list[Backlog]:
    """Return the position of a group in these topics, or in all, without joining it.

    The list is empty while there is no log.

    Raises LogUnavailable.
    """
    if not path.exists():
        return []
    with unavailable(path), closing(read_only(path)) as connection:
        written = next_offsets(connection)
        sql = "SELECT topic, next_offset FROM commits WHERE consumer_group = ?"
        committed = dict(connection.execute(sql, (group,)).fetchall())
        waiting_since = {}
        for topic in written:
            # The oldest time of several records: the first may have been appended by a clock that was ahead.
            (oldest,) = connection.execute(_APPENDED_AT, (topic, committed.get(topic, 0))).fetchone()
            waiting_since[topic] = None if oldest is None else datetime.fromtimestamp(oldest, UTC)
    return [
        Backlog(Partition(topic), written.get(topic, 0), committed.get(topic, 0), waiting_since.get(topic))
        for topic in (written if topics is None else topics)
    ]


def extent(path: Path) -> tuple[float | None, int]:
    """Return when the oldest record was appended, as Unix time or None, and the bytes in use.

    Raises LogUnavailable.
    """
    with unavailable(path), closing(read_only(path)) as connection:
        oldest = connection.execute(_OLDEST).fetchone()
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
    return oldest[0] if oldest else None, (pages - free) * size
