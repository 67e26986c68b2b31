"""The incremental sync of lists that are requested by spans of time.

dlt's incremental loading does not fit them, because it needs a field that all records have.
"""

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
    """The spans of time of an incremental sync.

    The first sync begins `history` ago. Later syncs read the last `overlap` again. `longest` is the longest
    window that the vendor answers.
    """

    history: timedelta
    overlap: timedelta
    longest: timedelta


def incremental_resource(
    name: str, key: str, account: str, span: Span, read: Callable[[Window], Iterator[list[Record]]]
) -> DltResource:
    """Return a resource of the records that `read` yields for one window after another.

    The windows begin at the end of the account's last sync that was loaded.
    """

    def pages() -> Iterator[list[Record]]:
        until = datetime.now(UTC)
        ends = dlt.current.resource_state().setdefault("done", {})
        last_end = parse_instant(ends[account]) if account in ends else None
        # An end in the future comes from a clock that was ahead by an unknown time, so the last sync may have
        # ended at any time before it.
        since = last_end - span.overlap if last_end and last_end <= until else until - span.history
        for window in split(Window(since, until), span.longest):
            yield from read(window)
        ends[account] = format_instant(until)

    return dlt.resource(pages, name=name, primary_key=key, write_disposition="merge")


def split(window: Window, longest: timedelta) -> Iterator[Window]:
    """Split a window into consecutive windows that are not longer than `longest`.

    A window without an end is only used for vendors that do not limit windows, and is not split.
    """
    since = window.since
    while window.until and window.until - since > longest:
        yield Window(since, since + longest)
        since += longest
    yield Window(since, window.until)
