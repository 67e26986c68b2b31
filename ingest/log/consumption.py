"""Waiting for the consumers of a log."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from ingest.errors import LogUnavailable
from ingest.log import Backlog
from ingest.log.backend import Log
from ingest.waits import STALLED_SECONDS, ignore, wait_while


@dataclass(frozen=True, slots=True)
class _Pending:
    """The number of records that are waited for, and the progress of their consumers."""

    records: int = field(compare=False)
    committed: int


def wait_until_consumed(
    log: Log, topics: Collection[str] = (), follow: Callable[[float], None] = ignore
) -> None:
    """Wait until consumers have loaded all that is in these topics now, or in all topics.

    `follow` is called meanwhile with the seconds for which no consumer has loaded anything.

    Raises LogUnavailable when that lasts for a minute.
    """
    targets = {
        entry.partition: entry.next
        for entry in log.backlog()
        if not topics or entry.partition.topic in topics
    }

    def pending(backlog: Sequence[Backlog]) -> _Pending:
        committed = sum(min(entry.committed, targets.get(entry.partition, 0)) for entry in backlog)
        return _Pending(sum(targets.values()) - committed, committed)

    _wait(log, pending, f" of {', '.join(sorted(topics))}" if topics else "", follow)


def wait_for_room(log: Log, limit: int, follow: Callable[[float], None] = ignore) -> None:
    """Wait until at most `limit` records wait for consumers.

    `follow` and errors are those of `wait_until_consumed`.
    """

    def pending(backlog: Sequence[Backlog]) -> _Pending:
        lag = sum(entry.lag for entry in backlog)
        return _Pending(lag if lag > limit else 0, sum(entry.committed for entry in backlog))

    _wait(log, pending, "", follow)


def _wait(
    log: Log,
    count_pending: Callable[[Sequence[Backlog]], _Pending],
    of_topics: str,
    follow: Callable[[float], None],
) -> None:
    def pending() -> _Pending | None:
        state = count_pending(log.backlog())
        return state if state.records else None

    def stalled(state: _Pending) -> LogUnavailable:
        return LogUnavailable(
            f"no consumer has loaded any of {state.records} records{of_topics} in the log for"
            f" {STALLED_SECONDS:.0f} s:"
            " is `ingest up` or `ingest consume` running? They are loaded once it is"
        )

    wait_while(
        pending,
        stalled,
        f"a consumer (`ingest up`, `ingest consume`) has to load what is in the log{of_topics}",
        follow,
    )
