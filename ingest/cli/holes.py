"""After a subscription was made anew: what its vendor could not deliver before is found by REST."""

import threading
from datetime import datetime
from typing import TYPE_CHECKING

from ingest.cli.output import print_line, print_note
from ingest.cli.plural import counted
from ingest.errors import IngestError
from ingest.settings import Settings
from ingest.vendors import AnyAccount

if TYPE_CHECKING:
    from receivers.reconcile.report import Report


def reconcile_since(settings: Settings, account: AnyAccount, since: datetime) -> bool:
    """Whether nothing is missing any more since then; what was repaired is said, or what went wrong and how to go on."""
    name = account.name
    print_note(f"{name}: looking for bookings that webhooks missed since {since:%Y-%m-%d %H:%M} UTC")
    print_note(f"{name}: needs a running consumer (`ingest up`); otherwise it stops after 1 minute")
    try:
        report = _report(settings, account, since)
    except IngestError as error:
        trouble = str(error)
    else:
        trouble = _trouble(report)
        if not report.failure:
            print_line(f"{name}: {_summary(report)}")
    if trouble:
        print_note(
            f"{name}: not finished: {trouble}. Run `ingest webhooks apply` again; `ingest up` goes on by itself"
        )
    return not trouble


def _report(settings: Settings, account: AnyAccount, since: datetime) -> "Report":
    from ingest.warehouse.bookings import StoredBookings
    from receivers.reconcile.run import Reconciler

    producer = settings.build_log().producer()
    try:
        reconciler = Reconciler(
            settings, StoredBookings(settings), producer, lambda *_: None, threading.Event()
        )
        (report,) = reconciler.run([account], since)
    finally:
        producer.close()
    return report


def _summary(report: "Report") -> str:
    counts = report.counts
    if not counts.missed and not counts.gone:
        return f"{counted(counts.seen, 'booking')} compared, none was missing"
    gone = f", {counts.gone} no longer at the vendor" if counts.gone else ""
    return f"{counted(counts.seen, 'booking')} compared, {counts.missed} were missing or out of date, {counts.repaired} of these repaired{gone}"


def _trouble(report: "Report") -> str:
    if report.failure:
        return str(report.failure)
    if report.unproven:
        return report.unproven
    if report.settled:
        return ""
    if report.counts.unreadable:
        return f"{counted(report.counts.unreadable, 'booking')} not readable (see the table dead_letters)"
    return f"{counted(report.counts.missed - report.counts.repaired, 'booking')} not repaired yet"
