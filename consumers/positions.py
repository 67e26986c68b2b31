"""What a consumer does where its positions are not true: its log is another than it was, or the warehouse is behind what was committed."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import structlog

from consumers.warehouse import Warehouse
from ingest.event import Event
from ingest.log import APPEND_SECONDS, Consumer, Partition, PositionChange, Producer, wait_until_durable
from ingest.log.bookmarks import Bookmark, Bookmarks
from ingest.loss import build_loss_note
from ingest.settings import Settings
from ingest.telemetry import READ_AGAIN

log = structlog.get_logger()


After = Mapping[Partition, Bookmark | None]


def note_changes(changes: Sequence[PositionChange], settings: Settings, producer: Producer) -> None:
    """Tells of a changed log, and has reconciliation compare its accounts: what was lost before it was loaded only the vendors still have.

    Raises LogUnavailable.
    """
    for change in changes:
        log.warning(
            "log.changed",
            topic=change.partition.topic,
            partition=change.partition.number,
            before=change.before,
            read_again_from=change.now,
            why="the log was cut, restored or made anew, and is read again from where it agrees with what was read before;"
            " what it lost before it was loaded is found by `ingest reconcile`",
        )
    notes = [note.to_record() for change in changes for note in _loss_notes(change, settings)]
    if notes:
        wait_until_durable(
            producer.append(settings.audit_topic, notes), APPEND_SECONDS, "what may be missing"
        )
    for change in changes:
        READ_AGAIN.labels(change.partition.topic, change.partition.number, "log").inc()


def newest_loads(kept: Mapping[Partition, Bookmarks]) -> frozenset[str]:
    """Return those that the committed positions depend on."""
    return frozenset(mark.load for bookmarks in kept.values() if (mark := bookmarks.newest) and mark.load)


def find_behind(warehouse: Warehouse, kept: Mapping[Partition, Bookmarks]) -> After:
    """By partition whose newest load the warehouse does not have, the newest bookmark that it has all loads of. Raises WarehouseUnavailable."""
    newest = newest_loads(kept)
    if not newest:
        return {}
    with warehouse.turn():
        missing = newest - warehouse.loaded(newest)
        behind = {
            partition: bookmarks.marks
            for partition, bookmarks in kept.items()
            if bookmarks.marks and bookmarks.marks[0].load in missing
        }
        there = warehouse.loaded({mark.load for marks in behind.values() for mark in marks})
    return {
        partition: next((mark for mark in marks if not mark.load or mark.load in there), None)
        for partition, marks in behind.items()
    }


def go_back(consumer: Consumer, after: After, *, is_new: bool) -> None:
    """Reads again what the warehouse lacks; `is_new`: it has nothing yet. What it has already, loading does not change. Raises LogUnavailable."""
    deleted = consumer.read_again(after)
    for partition, mark in after.items():
        READ_AGAIN.labels(partition.topic, partition.number, "warehouse").inc()
        gone = deleted.get(partition, 0)
        tell = log.error if gone else log.info if is_new else log.warning
        why = (
            "it has nothing yet" if is_new else "it was restored, or is another one: it lacks what was loaded"
        )
        remedy = (
            "; `ingest reconcile --since`, as far back as that reaches, finds what is no longer in the log either"
            if gone
            else ""
        )
        tell(
            "warehouse.behind",
            topic=partition.topic,
            partition=partition.number,
            read_again_after=mark.offset if mark else None,
            deleted=gone,
            why=f"{why}{remedy}",
        )


def _loss_notes(change: PositionChange, settings: Settings) -> Iterator[Event]:
    what = f"{change.partition.topic}/{change.partition.number}/{change.before}"
    for name, account in settings.accounts.items():
        if settings.topic(account.vendor) == change.partition.topic:
            yield build_loss_note(f"/{account.vendor}/{name}", datetime.now(UTC), what)
