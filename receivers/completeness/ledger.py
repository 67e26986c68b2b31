"""The ledger of one account: the stored verdicts on its hours, and new ones on their way to the table.

Verdicts go through the audit topic, as the ends of reconciliations do: the consumer is the only writer.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from ingest.event import JUDGED, build_statement
from ingest.log import APPEND_SECONDS, Producer, wait_until_durable
from ingest.settings import Settings
from ingest.vendors import AnyAccount
from ingest.warehouse.completeness import CompletenessTable, HourVerdict, Verdict
from receivers.completeness.verdicts import reopened, unknown_hour


class Ledger:
    """The verdicts on one account's hours.

    Every call raises WarehouseUnavailable and LogUnavailable. Without a producer nothing is written.
    """

    def __init__(
        self, settings: Settings, table: CompletenessTable, account: AnyAccount, producer: Producer | None
    ) -> None:
        self._settings = settings
        self._table = table
        self._account = account
        self._producer = producer

    def verdicts(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> Mapping[datetime, HourVerdict]:
        """Return the stored verdicts on the hours that begin in [since, until), by hour.

        Hours without one are open: nobody has asked for them.
        """
        return self._table.verdicts(self._account.vendor, self._account.name, since, until)

    def reopen(self, hours: Iterable[datetime], because: str) -> None:
        """Open hours again, each an instant with no minutes, for a reason in words for a person.

        Nothing is written about hours that are open for this reason already.
        """
        wanted = sorted(set(hours))
        if not wanted:
            return
        stored = self.verdicts(wanted[0], None)
        now = datetime.now(UTC)
        known = (
            stored.get(hour) or unknown_hour(self._account.vendor, self._account.name, hour, now)
            for hour in wanted
        )
        self.state(
            reopened(verdict, because, now)
            for verdict in known
            if (verdict.verdict, verdict.reason) != (Verdict.OPEN, because)
        )

    def state(self, verdicts: Iterable[HourVerdict]) -> None:
        """Append verdicts to the log, and return when they are durable."""
        events = [
            build_statement(JUDGED, self._account.source, verdict.columns(), verdict.stated_at)
            for verdict in verdicts
        ]
        if events and self._producer:
            records = [event.to_record() for event in events]
            appended = self._producer.append(self._settings.audit_topic, records)
            wait_until_durable(appended, APPEND_SECONDS, "verdicts on hours")
