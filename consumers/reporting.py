"""Metrics and log lines about records that were loaded or became dead letters."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime

import structlog

from consumers.batch import Chunk, Plan
from consumers.booking_rows import Row
from consumers.message import BookingMessage
from ingest.dead_letter import DeadLetter
from ingest.event import Via, vendor_and_account
from ingest.log import Record
from ingest.telemetry import (
    CHANGES_PUBLISHED,
    DEAD_LETTERS,
    EVENTS_IMPLAUSIBLE,
    EVENTS_LOADED,
    EVENTS_STALE,
    FRESHNESS_SECONDS,
    MISSED,
    RECONCILED_AT,
    RECONCILIATIONS,
    UNKNOWN_STATUS,
)
from ingest.times import format_instant

log = structlog.get_logger()


_DEAD_LETTER_REASONS = ("unreadable_record", "mapping_crashed", "load_refused")


def count_from_zero(accounts: Iterable[tuple[str, str]]) -> None:
    """Create the counters of accounts, each a vendor and a name.

    Otherwise Prometheus would not see the first of a kind as an increase.
    """
    for account in accounts:
        for counter in (CHANGES_PUBLISHED, MISSED, EVENTS_STALE, EVENTS_IMPLAUSIBLE, UNKNOWN_STATUS):
            counter.labels(*account)
        for reason in _DEAD_LETTER_REASONS:
            DEAD_LETTERS.labels(*account, reason)
        for outcome in ("complete", "failed"):
            RECONCILIATIONS.labels(*account, outcome)


def report_load(chunk: Chunk, plan: Plan) -> None:
    """Count what was loaded, once it is visible in the warehouse."""
    now = datetime.now(UTC)
    ages: dict[tuple[str, str, Via], list[float]] = defaultdict(list)
    for item in chunk.items:
        event = item.event
        if item.table == "booking_events":
            ages[event.vendor, event.account, event.via].append((now - event.received_at).total_seconds())
        elif item.table == "reconciliations" and event.via is not Via.REPLAY:
            _report_reconciliation(item.row)
        if item.message:
            _report_message(item.message)
    for (vendor, account, via), seconds in ages.items():
        EVENTS_LOADED.labels(vendor, account, via).inc(len(seconds))
        freshness = FRESHNESS_SECONDS.labels(vendor, account)
        for age in seconds if via is not Via.REPLAY else ():
            freshness.observe(max(0.0, age))  # the receiver's clock may be ahead
    for message in plan.stale:
        EVENTS_STALE.labels(message.event.vendor, message.event.account).inc()


def report_published(changes: Iterable[Record]) -> None:
    """Count the changes that were published."""
    for change in changes:
        CHANGES_PUBLISHED.labels(*vendor_and_account(change.headers["ce_source"])).inc()


def report_dead_letters(letters: Iterable[DeadLetter]) -> None:
    """Log each dead letter, with the reason for which its record could not be loaded."""
    for letter in letters:
        log.warning(
            "record.dead_lettered",
            source=letter.source,
            subject=letter.headers.get("ce_subject", ""),
            position=letter.position,
            reason=letter.reason,
            detail=letter.detail,
        )


def _report_reconciliation(row: Row) -> None:
    labels = (row["vendor"], row["account"])
    MISSED.labels(*labels).inc(row["missed"])
    RECONCILIATIONS.labels(*labels, row["outcome"]).inc()
    if row["outcome"] == "complete":
        RECONCILED_AT.labels(*labels).set(row["finished_at"].timestamp())


def _report_message(message: BookingMessage) -> None:
    event = message.event
    if message.has_unknown_status:
        UNKNOWN_STATUS.labels(event.vendor, event.account).inc()
    if message.is_implausible and not message.is_replayed:
        EVENTS_IMPLAUSIBLE.labels(event.vendor, event.account).inc()
        log.warning(
            "event.implausible_time",
            source=event.source,
            id=event.id,
            time=format_instant(event.time),
            changed_at=message.changed_at,
            received_at=format_instant(event.received_at),
            counts_as=message.version,
        )
