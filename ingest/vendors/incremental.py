"""Syncing what is asked for by spans of time where dlt's own incremental loading has no way to: it needs a field that all records have."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dlt
from dlt.extract import DltResource

from ingest.instant import format_instant, parse_instant
from ingest.rest import Record
from ingest.vendors.rest import Window


@dataclass(frozen=True, slots=True)
class Span:
    """How far back the first sync begins, how much the others read again, and the longest window the vendor answers."""

    history: timedelta
    overlap: timedelta
    longest: timedelta


def changes(
    name: str, key: str, account: str, span: Span, read: Callable[[Window], Iterator[list[Record]]]
) -> DltResource:
    """Pages of `read`, window by window, from where the account's last sync that was loaded ended."""

    def pages() -> Iterator[list[Record]]:
        until = datetime.now(UTC)
        done = dlt.current.resource_state().setdefault("done", {})
        mark = parse_instant(done[account]) if account in done else None
        # A mark of the future is of a clock that was ahead, nobody knows how far: what was read then may have ended anywhere before it.
        since = mark - span.overlap if mark and mark <= until else until - span.history
        for window in split(Window(since, until), span.longest):
            yield from read(window)
        done[account] = format_instant(until)

    return dlt.resource(pages, name=name, primary_key=key, write_disposition="merge")


def split(window: Window, longest: timedelta) -> Iterator[Window]:
    """One after the other. A window without an end is answered by no vendor that limits them."""
    since = window.since
    while window.until and window.until - since > longest:
        yield Window(since, since + longest)
        since += longest
    yield Window(since, window.until)
