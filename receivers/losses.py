"""Notes in the audit topic that deliveries may be missing, for `receivers.completeness` to read."""

from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime

import structlog

from ingest.event import Cause, Event, build_loss_note
from ingest.log import Producer
from ingest.settings import Settings
from ingest.telemetry import LOSSES
from ingest.vendors import AnyAccount, VerifiedDelivery

log = structlog.get_logger()


def report_loss(account: AnyAccount, verified: VerifiedDelivery, producer: Producer, topic: str) -> None:
    """Append a note of the loss that a delivery reports, if it does.

    Raises nothing: the delivery is acknowledged whatever happens here.
    """
    try:
        if not account.reports_loss(verified):
            return
        LOSSES.labels(account.vendor, account.name).inc()
        log.warning(
            "delivery.loss_reported",
            source=account.source,
            why="the vendor gave up an earlier delivery; reconciling",
        )
        at = verified.received_at
        _append(producer, topic, [build_loss_note(account.source, at, verified.body, cause=Cause.GIVEN_UP)])
    except Exception as error:  # noqa: BLE001 - reconciliation finds what was lost by itself, only later
        log.warning("delivery.loss_not_noted", source=account.source, why=type(error).__name__)


def report_spool_loss(settings: Settings, producer: Producer, since: datetime) -> None:
    """Append a note for each account that deliveries may be missing which were in the spool since then.

    Raises nothing.
    """
    now = datetime.now(UTC)
    notes = [
        build_loss_note(account.source, now, cause=Cause.SPOOL_LOST, since=since)
        for account in settings.build_accounts().values()
    ]
    try:
        _append(producer, settings.audit_topic, notes)
    except Exception as error:  # noqa: BLE001 - as above
        log.warning("delivery.loss_not_noted", source="spool", why=type(error).__name__)


def _append(producer: Producer, topic: str, notes: Sequence[Event]) -> None:
    def log_failure(future: "Future[None]") -> None:
        if error := future.exception():
            for note in notes:
                log.warning("delivery.loss_not_noted", source=note.source, why=str(error))

    producer.append(topic, [note.to_record() for note in notes]).add_done_callback(log_failure)
