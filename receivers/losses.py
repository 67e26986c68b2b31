"""Notes in the audit topic that a vendor gave up a delivery, for `receivers.reconcile.losses` to read."""

from concurrent.futures import Future

import structlog

from ingest.event import build_loss_note
from ingest.log import Producer
from ingest.telemetry import LOSSES
from ingest.vendors import AnyAccount, VerifiedDelivery

log = structlog.get_logger()


def report_loss(account: AnyAccount, verified: VerifiedDelivery, producer: Producer, topic: str) -> None:
    """Append a note of the loss that a delivery reports, if it does.

    Raises nothing: the delivery is acknowledged whatever happens here.
    """

    def log_failure(future: "Future[None]") -> None:
        if error := future.exception():
            log.warning("delivery.loss_not_noted", source=account.source, why=str(error))

    try:
        if not account.reports_loss(verified):
            return
        LOSSES.labels(account.vendor, account.name).inc()
        log.warning(
            "delivery.loss_reported",
            source=account.source,
            why="the vendor gave up an earlier delivery; reconciling",
        )
        note = build_loss_note(account.source, verified.received_at, verified.body)
        producer.append(topic, [note.to_record()]).add_done_callback(log_failure)
    except Exception as error:  # noqa: BLE001 - reconciliation finds what was lost by itself, only later
        log.warning("delivery.loss_not_noted", source=account.source, why=type(error).__name__)
