"""What a consumer does when its positions are wrong: the log has changed, or the warehouse is behind."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import structlog

from consumers.warehouse import Warehouse
from ingest.event import Cause, build_loss_note
from ingest.log import APPEND_SECONDS, Consumer, Partition, PositionChange, Producer, wait_until_durable
from ingest.log.bookmarks import Bookmark, Bookmarks
from ingest.settings import Settings
from ingest.telemetry import READ_AGAIN

log = structlog.get_logger()

# How long a record that is received may take until it is appended, unless a spool keeps it.
_APPENDING = timedelta(minutes=1)


def report_changes(
    changes: Sequence[PositionChange],
    settings: Settings,
    producer: Producer,
    bookmarks: Mapping[Partition, Bookmarks],
) -> None:
    """Report changes of the log, and have reconciliation compare the accounts whose events may be lost.

    `bookmarks` are those of the positions now. Only the vendors still have what the log lost before it was
    loaded. Raises LogUnavailable.
    """
    deleted = {change.partition for change in changes if change.has_deleted}
    changed = {change.partition for change in changes} - deleted
    for change in changes:
        if change.has_deleted:
            continue
        log.warning(
            "log.changed",
            topic=change.partition.topic,
            partition=change.partition.number,
            before=change.before,
            read_again_from=change.now,
            why="the log was cut, restored or made anew, and is read again from where it agrees with what"
            " was read before;"
            " `ingest reconcile` finds what it lost before it was loaded",
        )
    for partitions, cause in ((changed, Cause.LOG_CHANGED), (deleted, Cause.LOG_DELETED)):
        newest = (bookmarks.get(partition, Bookmarks()).newest for partition in partitions)
        note_losses(settings, producer, partitions, cause, _loaded_until(newest))
    for partition in changed:
        READ_AGAIN.labels(partition.topic, partition.number, "log").inc()


def note_losses(
    settings: Settings,
    producer: Producer,
    partitions: Collection[Partition],
    cause: Cause,
    since: datetime | None,
) -> None:
    """Append a note for each account whose events may be missing because partitions lost records.

    What was received before `since` is loaded; None if nobody knows. Raises LogUnavailable.
    """
    topics = {partition.topic for partition in partitions}
    positions = " ".join(sorted(f"{partition.topic}/{partition.number}" for partition in partitions))
    notes = [
        build_loss_note(
            f"/{account.vendor}/{name}", datetime.now(UTC), cause, positions, cause=cause, since=since
        ).to_record()
        for name, account in settings.accounts.items()
        if settings.topic(account.vendor) in topics
    ]
    if notes:
        wait_until_durable(
            producer.append(settings.audit_topic, notes), APPEND_SECONDS, "what may be missing"
        )


def _loaded_until(marks: Iterable[Bookmark | None]) -> datetime | None:
    """Return until when what was received is loaded by all of these bookmarks; None where one does not tell.

    That is when the bookmark's record was appended: a load may be of records that have waited for days.
    """
    moments = [_appended_at(mark) if mark else None for mark in marks]
    known = [moment for moment in moments if moment]
    return min(known) if known and len(known) == len(moments) else None


def _appended_at(mark: Bookmark) -> datetime | None:
    """Return a time shortly before the bookmark's record was appended; None where it does not tell that.

    Bookmarks of earlier releases have only the load, whose id is the Unix time at which it began.
    """
    try:
        return datetime.fromtimestamp(mark.appended_at or float(mark.load), UTC) - _APPENDING
    except (ValueError, OverflowError, OSError):
        return None


def committed_loads(bookmarks: Mapping[Partition, Bookmarks]) -> frozenset[str]:
    """Return the newest load of each partition, on which its committed position depends."""
    newest = (of_partition.newest for of_partition in bookmarks.values())
    return frozenset(mark.load for mark in newest if mark and mark.load)


def find_behind(
    warehouse: Warehouse, bookmarks: Mapping[Partition, Bookmarks]
) -> dict[Partition, Bookmark | None]:
    """Find the partitions whose newest load the warehouse does not have.

    Returns for each the newest bookmark of which it has all loads, None where there is no such one.
    Raises WarehouseUnavailable.
    """
    newest = committed_loads(bookmarks)
    if not newest:
        return {}
    with warehouse.turn():
        missing = newest - warehouse.loaded(newest)
        behind = {
            partition: of_partition.marks
            for partition, of_partition in bookmarks.items()
            if of_partition.marks and of_partition.marks[0].load in missing
        }
        loaded = warehouse.loaded({mark.load for marks in behind.values() for mark in marks})
    return {
        partition: next((mark for mark in marks if not mark.load or mark.load in loaded), None)
        for partition, marks in behind.items()
    }


def read_again(
    consumer: Consumer,
    bookmarks: Mapping[Partition, Bookmark | None],
    settings: Settings,
    producer: Producer,
    *,
    is_new: bool,
) -> None:
    """Read again what follows these bookmarks, which the warehouse lacks.

    `is_new` says that it has nothing yet. Loading what it has already changes nothing. What the log no longer
    has is noted for reconciliation. Raises LogUnavailable.
    """
    deleted = consumer.read_again(bookmarks)
    for partition, mark in bookmarks.items():
        READ_AGAIN.labels(partition.topic, partition.number, "warehouse").inc()
        why = "it was restored, or is another one: it lacks what was loaded"
        write = log.warning
        if is_new:
            why, write = "it has nothing yet", log.info
        deleted_records = deleted.get(partition, 0)
        if deleted_records:
            write = log.error
            why += (
                "; what is no longer in the log either is a gap, which reconciliation closes;"
                " `ingest reconcile --since` finds what is older"
            )
        write(
            "warehouse.behind",
            topic=partition.topic,
            partition=partition.number,
            read_again_after=mark.offset if mark else None,
            deleted=deleted_records,
            why=why,
        )
    lost = {partition for partition, records in deleted.items() if records}
    since = _loaded_until(bookmarks.get(partition) for partition in lost)
    note_losses(settings, producer, lost, Cause.WAREHOUSE_RESTORED, since)
