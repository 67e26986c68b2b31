"""How many records and bytes the next batch may have: fewer after memory was short. Pure."""

from collections.abc import Sequence
from math import ceil

from ingest.log import StoredRecord
from ingest.settings import ConsumerSettings

_GROWING_LOADS = 16  # loads after which a batch may be as large again as the settings allow


class BatchSize:
    """The size that the next batch may have."""

    def __init__(self, settings: ConsumerSettings) -> None:
        self._settings = settings
        self.records = settings.max_records
        self.bytes = settings.batch_bytes

    def is_reached_by(self, records: int, size: int) -> bool:
        """Return whether a batch of so many records and bytes has all that it may have."""
        return records >= self.records or size >= self.bytes

    def halve(self, records: Sequence[StoredRecord]) -> None:
        """Allow half of these records, for which memory was short."""
        self.records = len(records) // 2
        self.bytes = max(1, total_bytes(records) // 2)

    def grow(self) -> None:
        """Allow a little more after a load that succeeded."""
        most_records, most_bytes = self._settings.max_records, self._settings.batch_bytes
        self.records = min(most_records, self.records + ceil(most_records / _GROWING_LOADS))
        self.bytes = min(most_bytes, self.bytes + ceil(most_bytes / _GROWING_LOADS))


def total_bytes(records: Sequence[StoredRecord]) -> int:
    """Return the size of records together."""
    return sum(stored.record.size for stored in records)
