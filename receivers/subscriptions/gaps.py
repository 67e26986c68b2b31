"""Gaps: what a vendor could not deliver before its subscription was made anew, and what fills them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ingest.clock import LOOKBACK_IN_DOUBT, is_future
from ingest.settings import Settings
from ingest.vendors import AnyAccount
from receivers.reconcile.report import Report
from receivers.reconcile.run import Reconciler
from receivers.subscriptions.state import open_state


@dataclass(frozen=True, slots=True)
class Gap:
    """Webhooks of the account may have been missed since then, and nothing has looked for them yet."""

    account: AnyAccount
    since: datetime


def open_gaps(settings: Settings, accounts: Sequence[AnyAccount]) -> list[Gap]:
    """Return the gaps of those of the accounts that can be reconciled. Raises ConfigurationError."""
    gaps = []
    now = datetime.now(UTC)
    for account in accounts:
        if not account.settings.can_reconcile():
            continue
        if since := open_state(settings, account).read().gap_since:
            gaps.append(Gap(account, now - LOOKBACK_IN_DOUBT if is_future(since, now) else since))
    return gaps


def fill_gap(settings: Settings, gap: Gap, reconciler: Reconciler) -> Report | None:
    """Reconcile an account since its gap began, and close the gap if nothing is missing any more.

    Returns the report of that; None if the reconciler was stopped. Raises as `StateFile.close_gap`.
    """
    report = next(iter(reconciler.run([gap.account], gap.since)), None)
    if report and report.settled:
        open_state(settings, gap.account).close_gap(gap.since)
    return report
