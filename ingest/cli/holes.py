"""After a subscription was made anew: what its vendor could not deliver before is found by REST."""

import threading
from datetime import datetime

from ingest.cli.output import print_note
from ingest.errors import IngestError
from ingest.settings import Settings
from ingest.vendors import AnyVendor


def reconcile_since(settings: Settings, vendor: AnyVendor, since: datetime) -> bool:
    """Whether nothing is missing any more since then; what went wrong is said, and how to go on."""
    name = vendor.account.name
    print_note(f"{name}: looking for what webhooks missed since {since:%Y-%m-%d %H:%M} UTC")
    print_note(f"{name}: a consumer has to load it (`ingest consume`, or `ingest up`); without one this gives up after a minute")
    try:
        trouble = _trouble(settings, vendor, since)
    except IngestError as error:
        trouble = str(error)
    if trouble:
        print_note(f"{name}: not done: {trouble}. The next `ingest webhooks apply` goes on, and `ingest up` does")
    return not trouble


def _trouble(settings: Settings, vendor: AnyVendor, since: datetime) -> str:
    from consumers.stored import StoredBookings
    from ingest.opening import open_producer
    from receivers.reconcile.run import Reconciler, Wanted

    producer = open_producer(settings)
    try:
        stop = threading.Event()
        (report,) = Reconciler(settings, StoredBookings(settings), producer, lambda *_: None, stop).run([vendor], Wanted(since))
    finally:
        producer.close()
    if report.failure:
        return str(report.failure)
    return "" if report.settled else f"{report.counts.missed - report.counts.repaired} bookings are not repaired yet"
