"""The comparison of the warehouse with a list of bookings that somebody exported from the vendor. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ingest.clock import version_instant
from ingest.times import format_instant
from receivers.completeness.digest import add, digest_of, digest_text


@dataclass(slots=True)
class Comparison:
    """What differs: ids that are `missing` here, `older` here, or `only_here`, and the digests of both sides.

    The digests are of the ids, and of the minutes of their last changes where the export has these.
    """

    exported: int = 0
    missing: list[str] = field(default_factory=list)
    older: list[str] = field(default_factory=list)
    only_here: list[str] = field(default_factory=list)
    digest_here: str = ""
    digest_there: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether the warehouse has everything that was exported, and nothing older."""
        return not self.missing and not self.older


def compare_export(held: Iterable[tuple[str, str]], exported: Mapping[str, datetime | None]) -> Comparison:
    """Compare the ids and versions that the warehouse holds with exported ids and times of change.

    Vendors cut times to the second or the minute, not always the same in exports as in their APIs.
    """
    comparison = Comparison(exported=len(exported))
    here = there = 0
    seen: set[str] = set()
    for booking_id, version in held:
        if booking_id not in exported:
            comparison.only_here.append(booking_id)
            continue
        seen.add(booking_id)
        changed_at, exported_at = version_instant(version), exported[booking_id]
        here = add(here, digest_of(booking_id, _minute(changed_at) if exported_at else ""))
        if exported_at and _is_older(changed_at, exported_at):
            comparison.older.append(booking_id)
    for booking_id, exported_at in exported.items():
        there = add(there, digest_of(booking_id, _minute(exported_at)))
        if booking_id not in seen:
            comparison.missing.append(booking_id)
    comparison.digest_here, comparison.digest_there = digest_text(here), digest_text(there)
    return comparison


def _minute(moment: datetime | None) -> str:
    return format_instant(moment)[:16] if moment else ""


def _is_older(moment: datetime | None, exported: datetime) -> bool:
    """Return whether a time is before an exported one, as far as the coarser of the two tells."""
    if moment is None:
        return True
    cut = exported.replace(microsecond=0)
    return moment < (cut if moment.second else cut.replace(second=0))
