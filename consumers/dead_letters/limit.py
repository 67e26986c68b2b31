"""The limit of dead letters: a run of them means a bug of ours or a wrong deploy, not bad data. Pure."""

from collections import deque
from collections.abc import Iterable

from ingest.errors import DeadLetterLimit

# How many records are looked back at, in limits.
_WINDOW_LIMITS = 10


class FailureLimit:
    """Counts how many records failed, over batches, and raises DeadLetterLimit when there are too many.

    Too many are as many in a row as the limit, or more than half of the last ten times the limit: a bug that
    concerns one vendor must be noticed among good records of the others.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._window = _WINDOW_LIMITS * limit
        self._in_a_row = 0
        self._records = 0
        self._failures: deque[int] = deque()  # the numbers of failed records within the window
        self.commit()

    def count(self, successes: Iterable[bool]) -> None:
        """Count records, in the order of the log. Raises DeadLetterLimit at the one that is too many."""
        for success in successes:
            self._records += 1
            if success:
                self._in_a_row = 0
                continue
            self._in_a_row += 1
            self._failures.append(self._records)
            while self._failures[0] <= self._records - self._window:
                self._failures.popleft()
            if self._in_a_row >= self._limit:
                raise _limit_error(f"{self._in_a_row} records in a row")
            if len(self._failures) > self._window / 2:
                raise _limit_error(
                    f"{len(self._failures)} of the last {min(self._records, self._window)} records"
                )

    def commit(self) -> None:
        """Keep what was counted, after the records were committed."""
        self._committed = (self._in_a_row, self._records, tuple(self._failures))

    def rewind(self) -> None:
        """Forget what was counted since the last commit: those records are read, and counted, again."""
        self._in_a_row, self._records, failures = self._committed
        self._failures = deque(failures)


def _limit_error(count: str) -> DeadLetterLimit:
    return DeadLetterLimit(
        f"{count} could not be read or loaded, and the newest of them were not committed. The log lines"
        " `record.dead_lettered` above say why; fix the cause, or raise consumer.dead_letter_limit to set"
        " them aside"
    )
