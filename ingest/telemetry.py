"""Metrics, each with its name and meaning in one place, and structured logs.

With several receiver workers PROMETHEUS_MULTIPROC_DIR is set before this module is imported, and metrics add
up over workers.
"""

import logging
import math
import re
import select
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

import structlog
from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics
from structlog.typing import EventDict

from ingest.terminal import repair_streams, visible

disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotation here

_ACCOUNT = ("vendor", "account")

_WRITE_MILLISECONDS = 20  # for which a line of the log may wait for its reader
_THROTTLE_SECONDS = 10.0
_MOST_KINDS = 1000  # of throttled lines that are remembered; there are a few for each account

DELIVERIES = Counter("ingest_deliveries_total", "Webhook deliveries by answer.", (*_ACCOUNT, "outcome"))
REFUSED_REQUESTS = Counter(
    "ingest_refused_requests_total",
    "Requests to the public listener that were refused before their account was known, by reason.",
    ("reason",),
)
SIGNED_BY = Counter(
    "ingest_deliveries_signed_total",
    "Verified deliveries by which live secret signed them.",
    (*_ACCOUNT, "secret"),
)
DELIVERY_SECONDS = Histogram(
    "ingest_delivery_seconds",
    "From the request's arrival to its answer.",
    _ACCOUNT,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
IN_FLIGHT_BYTES = Gauge(
    "ingest_in_flight_bytes", "Bodies being read, or waiting for the log.", multiprocess_mode="livesum"
)
SPOOLED = Counter(
    "ingest_spooled_total",
    "Records kept in a worker's spool because the log did not acknowledge them in time.",
)
SPOOL_RECORDS = Gauge(
    "ingest_spool_records", "Records that wait in spools for the log.", multiprocess_mode="livesum"
)
SPOOL_OLDEST_SECONDS = Gauge(
    "ingest_spool_oldest_seconds",
    "How long the oldest record in a spool has waited; 0 where none does.",
    multiprocess_mode="livemax",
)
EVENTS_LOADED = Counter(
    "ingest_events_loaded_total",
    "Events in loads that succeeded; a replayed one counts again.",
    (*_ACCOUNT, "via"),
)
EVENTS_STALE = Counter(
    "ingest_events_stale_total", "Events older than what the warehouse had of their booking.", _ACCOUNT
)
EVENTS_IMPLAUSIBLE = Counter(
    "ingest_events_implausible_time_total",
    "Events with a time that cannot be right: later than they were sent or received, or before their booking"
    " was made.",
    _ACCOUNT,
)
UNKNOWN_STATUS = Counter(
    "ingest_unknown_status_total", "Bookings whose vendor's status word we do not know.", _ACCOUNT
)
DEAD_LETTERS = Counter("ingest_dead_letters_total", "Records set aside, by reason.", (*_ACCOUNT, "reason"))
CHANGES_PUBLISHED = Counter(
    "ingest_changes_published_total", "Changes of bookings that were published in the feed.", _ACCOUNT
)
BATCH_RECORDS = Histogram(
    "ingest_batch_records", "Records in a load.", buckets=(1, 10, 50, 100, 250, 500, 1000, 2500, 5000, 10000)
)
LOAD_SECONDS = Histogram(
    "ingest_load_seconds",
    "One load, from rows to visible.",
    buckets=(0.1, 0.25, 0.5, 0.75, 1, 2, 5, 10, 30, 60, 120, 300),
)
FRESHNESS_SECONDS = Histogram(
    "ingest_freshness_seconds",
    "From an event's receipt to its row being visible.",
    _ACCOUNT,
    buckets=(0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 90, 120, 300, 600, 3600),
)
LOAD_INTERVAL_SECONDS = Gauge(
    "ingest_load_interval_seconds",
    "The time between two loads: what freshness, and the age of what is in the log, are to be compared with.",
)
CLOCK_SKEW_SECONDS = Gauge(
    "ingest_clock_skew_seconds",
    "How far this machine's clock is ahead of a vendor's, negative when behind: by its signatures, or by the"
    " Date of its REST answers.",
    _ACCOUNT,
    multiprocess_mode="livemostrecent",
)
LOSSES = Counter(
    "ingest_deliveries_lost_total", "Deliveries that say that their vendor gave up an earlier one.", _ACCOUNT
)
MISSED = Counter(
    "ingest_reconcile_missed_total", "Bookings that reconciliation found missing or older here.", _ACCOUNT
)
RECONCILIATIONS = Counter(
    "ingest_reconciliations_total", "Reconciliations by how they ended.", (*_ACCOUNT, "outcome")
)
RECONCILED_AT = Gauge(
    "ingest_reconciled_timestamp_seconds", "When an account was last reconciled to the end.", _ACCOUNT
)
GAPS_OPEN = Gauge(
    "ingest_gaps_open",
    "Open gaps, spans of time in which deliveries may be missing, by what caused them.",
    (*_ACCOUNT, "cause"),
)
GAP_OLDEST_SECONDS = Gauge(
    "ingest_gap_oldest_seconds",
    "How long ago an account's oldest open gap was found; 0 where none is open.",
    _ACCOUNT,
)
COMPLETE_UNTIL = Gauge(
    "ingest_complete_until_timestamp_seconds",
    "Until when every hour of an account is proven complete, from the first one that was asked for on; 0"
    " where that one is not.",
    _ACCOUNT,
    multiprocess_mode="livemostrecent",
)
PROVEN_UNTIL = Gauge(
    "ingest_proven_until_timestamp_seconds",
    "Until when every hour of an account is proven, although its vendor may not be asked for a part of some;"
    " 0 where the first one is not.",
    _ACCOUNT,
    multiprocess_mode="livemostrecent",
)
OLDEST_UNDONE_SECONDS = Gauge(
    "ingest_oldest_undone_seconds",
    "How long the oldest work has waited that was begun and is not done; 0 where there is none.",
    multiprocess_mode="livemax",
)
DISK_FREE_BYTES = Gauge(
    "ingest_disk_free_bytes",
    "Free bytes on the disk of each folder that grows, by the setting that names the folder.",
    ("setting",),
    multiprocess_mode="livemostrecent",
)
LAG_RECORDS = Gauge(
    "ingest_lag_records", "Records written to the log and not yet committed.", ("topic", "partition")
)
DELETED_UNREAD = Counter(
    "ingest_deleted_unread_total",
    "Records that Kafka deleted before the consumer had read them.",
    ("topic", "partition"),
)
READ_AGAIN = Counter(
    "ingest_read_again_total",
    "Times that a partition was read again from an earlier record, because its log or the warehouse was not"
    " the one that its position belonged to.",
    ("topic", "partition", "because"),
)
SUBSCRIPTION_STATE = Gauge(
    "ingest_subscription_state",
    "Subscriptions at the vendor by what they need: keep, create, replace, remove and so on; unknown is 1"
    " where it could not be asked.",
    (*_ACCOUNT, "state"),
)


class Throttle:
    """A structlog processor that drops repetitions of what strangers can have logged as often as they like.

    It looks at lines that are logged with `throttle=True`. Those with the same event, source and reason are
    of one kind, whatever numbers are in the reason. The first of a kind passes, and then one in ten seconds,
    which says how many were dropped: in the field `unreported`, or in the message of a library.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[
            tuple[object, ...], tuple[float, int]
        ] = {}  # when one passed, and how many were dropped since

    def __call__(self, _logger: Any, _method: str, fields: EventDict) -> EventDict:
        """Return the fields of a line that passes. Raises DropEvent for others."""
        if not fields.pop("throttle", False):
            return fields
        reason = re.sub(r"\d+", "0", str(fields.get("why", fields.get("message"))))
        kind = (fields["event"], fields.get("reason"), fields.get("source"), reason)
        now = self._clock()
        passed_at, dropped = self._kinds.get(kind, (-math.inf, 0))
        if now < passed_at + _THROTTLE_SECONDS:
            self._kinds[kind] = passed_at, dropped + 1
            raise structlog.DropEvent
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        self._kinds[kind] = now, 0
        if "message" not in fields:
            fields["unreported"] = dropped
        elif dropped:
            fields["message"] += f" ({dropped} more were not reported)"
        return fields


_throttle = Throttle()  # one for all loggers of the process


def configure_logging(service: str, *, level: int = logging.INFO) -> None:
    """Log JSON lines to standard error, or lines for people if it is a terminal."""
    repair_streams()
    renderers = (
        [_escape_control_characters, structlog.dev.ConsoleRenderer()]
        if sys.stderr.isatty()
        else [structlog.processors.JSONRenderer()]
    )
    logging.basicConfig(handlers=[LibraryHandler()], level=logging.WARNING, force=True)
    structlog.configure(
        processors=[
            _throttle,
            lambda _, __, fields: {"service": service, **fields},
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _BestEffortLogger(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _escape_control_characters(_logger: Any, _method: str, fields: EventDict) -> EventDict:
    """Return fields that cannot drive a terminal; JSON needs no such care."""
    return {
        visible(name): visible(str(value), "\n\t" if name == "exception" else "")
        for name, value in fields.items()
    }


class _BestEffortLogger(structlog.PrintLogger):
    """A logger that leaves out lines which it cannot write, as on a full disk or a pipe that nobody reads."""

    def msg(self, message: str) -> None:
        """Write a line, unless that fails or would block."""
        with suppress(OSError, ValueError):
            if _accepts_line(self._file):
                super().msg(message)

    log = debug = info = warn = warning = err = error = critical = exception = fatal = failure = msg


def _accepts_line(file: TextIO) -> bool:
    """Return whether a write of a few KiB would not block, unlike on a full pipe or a stopped terminal."""
    try:
        number = file.fileno()
    except (OSError, ValueError):
        return True  # it is in memory
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return bool(poll.poll(_WRITE_MILLISECONDS))


class LibraryHandler(logging.Handler):
    """A logging handler that passes on what libraries log, uvicorn above all, to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record as the event `library.<logger>`.

        Warnings of uvicorn are throttled: its clients cause them.
        """
        try:
            throttle = record.name == "uvicorn.error" and record.levelno <= logging.WARNING
            fields: dict[str, object] = {"message": record.getMessage(), "throttle": throttle}
            if record.exc_info and record.exc_info[1]:
                error = record.exc_info[1]  # whose own message may quote a body or a secret
                fields |= {"error": type(error).__name__, "where": traceback.format_tb(error.__traceback__)}
            structlog.get_logger().log(record.levelno, f"library.{record.name}", **fields)
        except Exception:  # noqa: BLE001 - a library that logs badly goes on, as with any handler
            self.handleError(record)
