"""Changes that comparisons found, and of which no delivery had come: nothing was delivered around them.

Where no other gap says why, the time from the last delivery before such a change to the first one after it is
a gap. So a vendor that sends nothing is noticed whatever the account's rhythm is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ingest.clock import LOOKBACK_IN_DOUBT, is_future
from ingest.event import Cause
from ingest.settings import Settings
from ingest.vendors import AnyAccount
from ingest.warehouse.deliveries import deliveries_around, missed_changes
from receivers.completeness.causes import suspect_undelivered
from receivers.completeness.gaps import DELIVERY_DELAY, GapBook, Suspicion

_LOADED_WITHIN = timedelta(days=2)  # a process that looks after a longer time leaves out what it did not see
_MOST = 50  # of an account in one look: each is a query


@dataclass
class UndeliveredChanges:
    """Looks for the changes of which no delivery came. Every call raises WarehouseUnavailable."""

    settings: Settings
    book: GapBook
    _ended: set[str] = field(default_factory=set)  # the ids of gaps that end with a delivery

    def read(self, now: datetime) -> Mapping[tuple[str, str], Sequence[datetime]]:
        """Return when the changes happened that comparisons found, newest first, by vendor and account."""
        return missed_changes(self.settings, now - _LOADED_WITHIN, now - LOOKBACK_IN_DOUBT)

    def suspicions(
        self, account: AnyAccount, changes: Sequence[datetime], now: datetime
    ) -> Iterator[Suspicion]:
        """Yield what these changes show, newest first.

        Add each suspicion to the book before the next one is asked for: it may explain others.
        """
        asked = 0
        for changed_at in changes:
            is_explained = self.book.explains_miss(account.source, changed_at)
            if is_explained or is_future(changed_at, now):
                continue
            key = (account.vendor, account.name)
            before, after = deliveries_around(self.settings, key, changed_at, changed_at + DELIVERY_DELAY)
            asked += 1
            if before is None or asked > _MOST:
                return  # earlier ones are from before the account's first delivery, or wait for the next look
            yield suspect_undelivered(account.source, changed_at, before, after, now)

    def end(self, account: AnyAccount, newest: datetime, now: datetime) -> None:
        """Extend the account's latest gap to the first delivery after it; the `newest` delivery is known.

        Earlier ones were extended before that one was found.
        """
        gaps = self.book.of_cause(account.source, Cause.NOT_DELIVERED)
        latest = max(gaps, key=lambda gap: gap.until_at or now, default=None)
        if latest is None or latest.until_at is None or latest.id in self._ended:
            return
        if newest < latest.until_at:
            return
        key = (account.vendor, account.name)
        _, first = deliveries_around(self.settings, key, latest.until_at, latest.until_at)
        if first:
            self._ended.add(latest.id)
        if first and latest.until_at < first <= now:
            self.book.update(latest, now, until_at=first, closed_at=None)
