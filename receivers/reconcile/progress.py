"""How far one account's run came and how it ended, as text that outlives the process. Pure."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson

from ingest.errors import PayloadError
from ingest.instant import format_instant, parse_instant
from receivers.reconcile.report import Counts


@dataclass(frozen=True, slots=True)
class End:
    """What the report of a run that ended has beside its progress, and what is to be done once that report is in the log.

    `reached` is the report's `until`. The run can go on where it failed, if `resumable`; it compared everything before `covers`.
    `unproven` is the report's.
    """

    finished_at: datetime
    reached: datetime | None
    error: str | None
    resumable: bool = False
    covers: datetime | None = None
    unproven: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """A run that was asked for `since` and `until` (None: until now) has compared everything before `done`.

    Of the `rows` that the warehouse has before `done`, the vendor listed none of `unlisted`. One with an `end` is to be told yet.
    """

    since: datetime
    until: datetime | None
    done: datetime
    started_at: datetime
    written_at: datetime
    counts: Counts
    unlisted: frozenset[str] = frozenset()
    rows: int = 0
    end: End | None = None


def written(progress: Progress) -> bytes:
    """For `read`."""
    end = progress.end
    raw = {
        "since": format_instant(progress.since),
        "until": _text(progress.until),
        "done": format_instant(progress.done),
        "started_at": format_instant(progress.started_at),
        "written_at": format_instant(progress.written_at),
        "counts": asdict(progress.counts),
        "unlisted": sorted(progress.unlisted),
        "rows": progress.rows,
        "end": end
        and {
            "finished_at": format_instant(end.finished_at),
            "reached": _text(end.reached),
            "error": end.error,
            "resumable": end.resumable,
            "covers": _text(end.covers),
            "unproven": end.unproven,
        },
    }
    return orjson.dumps(raw)


def read(content: bytes) -> Progress | None:
    """What cannot be read cannot be resumed; starting over costs requests, no more."""
    try:
        raw = orjson.loads(content)
        return Progress(
            since=parse_instant(raw["since"]),
            until=_instant(raw["until"]),
            done=parse_instant(raw["done"]),
            started_at=parse_instant(raw["started_at"]),
            written_at=parse_instant(raw["written_at"]),
            counts=Counts(**raw["counts"]),
            unlisted=frozenset(raw["unlisted"]),
            rows=raw["rows"],
            end=raw["end"] and _end(raw["end"]),
        )
    except (PayloadError, ValueError, KeyError, TypeError):
        return None


def _end(raw: dict[str, Any]) -> End:
    return End(
        parse_instant(raw["finished_at"]),
        _instant(raw["reached"]),
        raw["error"],
        raw["resumable"],
        _instant(raw["covers"]),
        raw.get("unproven"),
    )


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else format_instant(moment)


def _instant(text: str | None) -> datetime | None:
    return None if text is None else parse_instant(text)
