"""Hours rolled up into days or months: counts, and one digest for all of their bookings. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from itertools import groupby

from ingest.spans import PeriodKind
from ingest.warehouse.completeness import PROVEN, HourVerdict
from receivers.completeness.digest import add, digest_text


@dataclass(frozen=True, slots=True)
class Period:
    """A day such as `2026-03-01`, or a month such as `2026-03`, of one account.

    `hours` has how many hours have each verdict. The vendor listed `listed` bookings that changed last in
    them, and `missing` are not in the warehouse. `digest` is that of all listed bookings; None if an hour is
    not proven.
    """

    period: str
    listed: int
    missing: int
    digest: str | None
    hours: dict[str, int] = field(default_factory=dict)


def roll_up(verdicts: Iterable[HourVerdict], kind: PeriodKind) -> list[Period]:
    """Return the days or months of an account's hours, which are in their order."""
    form = "%Y-%m-%d" if kind is PeriodKind.DAY else "%Y-%m"
    periods = []
    for period, group in groupby(verdicts, lambda verdict: verdict.hour.strftime(form)):
        hours = list(group)
        digests = [int(hour.digest, 16) for hour in hours if hour.verdict in PROVEN and hour.digest]
        periods.append(
            Period(
                period,
                listed=sum(hour.listed for hour in hours),
                missing=sum(hour.missing for hour in hours),
                digest=digest_text(reduce(add, digests)) if len(digests) == len(hours) else None,
                hours=dict(Counter(hour.verdict.value for hour in hours)),
            )
        )
    return periods
