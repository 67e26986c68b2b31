"""How soon the webhooks of each hour were visible, as rows of the table `freshness`.

A row is measured from what the warehouse has, so that nothing is lost with a process: a webhook is visible at
the end of the first load that ends after its own load began. With several consumers that may be another one's
load, which ended a little earlier.
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from ingest.event import MEASURED, build_statement
from ingest.log import APPEND_SECONDS, Producer, wait_until_durable
from ingest.settings import Settings
from ingest.vendors import AnyAccount
from ingest.warehouse.completeness import HOUR, hour_of
from ingest.warehouse.freshness import Arrival, FreshnessTable

# How much further back the next measurement looks: loads may have run during the last one, and clocks differ.
_OVERLAP = timedelta(hours=1)


def measure(arrivals: Sequence[Arrival], loads: Sequence[datetime]) -> dict[str, Any]:
    """Return the number of webhooks that are visible, and percentiles of the seconds that it took.

    `loads` are when loads were visible, in order.
    """
    received, happened = [], []
    for arrival in arrivals:
        position = bisect_left(loads, arrival.loaded_at)
        if position == len(loads):
            continue
        visible_at = loads[position]
        # Clocks differ: what was visible before it was received took no time.
        received.append(max(0.0, (visible_at - arrival.received_at).total_seconds()))
        if arrival.happened_at != arrival.received_at:
            happened.append(max(0.0, (visible_at - arrival.happened_at).total_seconds()))
    return {
        "events": len(received),
        **{f"p{share}": percentile(received, share) or 0.0 for share in (50, 95, 99)},
        **{f"happened_p{share}": percentile(happened, share) for share in (50, 95, 99)},
    }


def percentile(seconds: Sequence[float], share: int) -> float | None:
    """Return the least of the values that so many percent do not exceed; None where there are none."""
    return sorted(seconds)[max(0, math.ceil(len(seconds) * share / 100) - 1)] if seconds else None


def measure_freshness(
    settings: Settings, account: AnyAccount, producer: Producer, since: datetime, now: datetime
) -> None:
    """State the freshness of each hour that is over, and of which webhooks were loaded since the last time.

    The first time, it is since `since`. Raises WarehouseUnavailable and LogUnavailable.
    """
    table = FreshnessTable(settings)
    last = table.last_stated(account.vendor, account.name)
    loaded_since = max(since, min(last, now) - _OVERLAP) if last else since
    receipts = table.receipts(account.vendor, account.name, loaded_since)
    hours = {hour for received_at in receipts if (hour := hour_of(received_at)) + HOUR <= now}
    events = []
    # A query for each hour would take minutes for a month, and one for all of a month much memory.
    for _, group in groupby(sorted(hours), datetime.date):
        day = list(group)
        arrivals = table.arrivals(account.vendor, account.name, day[0], day[-1] + HOUR)
        loads = table.loads(arrivals)
        by_hour = defaultdict(list)
        for arrival in arrivals:
            by_hour[hour_of(arrival.received_at)].append(arrival)
        for hour in day:
            measured = measure(by_hour[hour], loads)
            if measured["events"]:
                row = {
                    "id": f"{account.vendor}/{account.name}/{hour:%Y-%m-%dT%H}",
                    "vendor": account.vendor,
                    "account": account.name,
                    "hour": hour.isoformat(),
                }
                events.append(build_statement(MEASURED, account.source, row | measured, now))
    if events:
        appended = producer.append(settings.audit_topic, [event.to_record() for event in events])
        wait_until_durable(appended, APPEND_SECONDS, "how fresh rows were")
