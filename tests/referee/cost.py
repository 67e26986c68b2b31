"""What happened in a life, what its runs cost, and the fewest requests that could have shown as much."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta

from ingest.errors import VendorUnavailable
from ingest.simulator.calendly.records import ENDED
from ingest.simulator.world import Meeting
from ingest.vendors import AnyAccount
from receivers.reconcile.report import Report

_LONGEST_WINDOW = timedelta(days=31)
_DETAILS = {"appointedd": 1, "calendly": 1}  # requests for what a vendor's list leaves out of a booking


@dataclass(slots=True)
class Cost:
    """What the runs of one vendor cost. `seconds` are of this process."""

    runs: int = 0
    failed: int = 0
    requests: int = 0
    fewest: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Tally:
    """What happened: faults by kind, and what the runs of each account cost."""

    faults: dict[str, int] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=lambda: defaultdict(Cost))

    def note(self, kind: str) -> None:
        """Count a fault."""
        self.faults[kind] = self.faults.get(kind, 0) + 1


def fewest_requests(account: AnyAccount, report: Report, meetings: Collection[Meeting], page: int) -> int:
    """Return how many requests a run takes that knows the vendor, and everything but what it asks for.

    These are the full pages of the list; what lists leave out of the bookings that were missed; whether each
    booking that is gone is gone; and, as no list of Calendly's has no-shows, the invitees of each meeting
    that was held. A run that the vendor does not answer takes one, without which nobody knows. All others
    that fail count for nothing.
    """
    if report.failure:
        return int(isinstance(report.failure, VendorUnavailable))
    rest_class = account.rest_class
    if rest_class is None:
        return 0
    is_by_start = rest_class.window_column == "starts_at"
    listed = [
        meeting
        for meeting in meetings
        if report.since <= (meeting.starts_at if is_by_start else meeting.changed_at)
        and (is_by_start or report.until is None or meeting.changed_at < report.until)
    ]
    span = (report.until or report.finished_at) - report.since
    windows = -(-span // min(rest_class.longest_window, _LONGEST_WINDOW))
    held = 0
    if is_by_start:
        held = sum(
            meeting.starts_at <= report.started_at and meeting.last_change not in ENDED for meeting in listed
        )
    details = report.counts.missed * _DETAILS.get(account.vendor, 0)
    return max(windows, -(-len(listed) // page)) + max(held, details) + report.counts.gone
