"""The log as a thing that one opens, `SqliteLog` or `KafkaLog`, and waiting for its consumers.

Neither log imports its implementation before it is used: a command with the embedded log starts without a
Kafka client.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from ingest.errors import LogUnavailable
from ingest.log import Backlog, Consumer, Follower, PolledProducer, Reader, Start
from ingest.log.kafka_settings import KafkaSettings
from ingest.readiness import Finding, failure, ok
from ingest.times import describe_duration
from ingest.waits import ignore, wait_while

_SQLITE = "sqlite:///"
_KAFKA = "kafka://"
_LONG_INTERVAL = timedelta(seconds=5)  # a shorter one need not be explained to who waits


class Log(Protocol):
    """One log, with its topics and the group that consumes them. Making it opens nothing."""

    @property
    def file(self) -> Path | None:
        """The file of the embedded log; None for Kafka, where receivers keep a spool."""

    def producer(self) -> PolledProducer:
        """Open a producer. Raises LogUnavailable."""

    def consumer(self) -> Consumer:
        """Join the group. Raises LogUnavailable."""

    def reader(self, since: Start, topics: Sequence[str] = ()) -> Reader:
        """Open a reader of these topics, or of all.

        It begins with what was appended at `since` or later, with these offsets of partitions and the oldest
        record of all others, or with the oldest record.

        Raises LogUnavailable.
        """

    def follower(self, topic: str, start: Start) -> Follower:
        """Open a follower of one topic. Raises LogUnavailable."""

    def backlog(self) -> list[Backlog]:
        """Return the position of the group in each partition, without joining it. Raises LogUnavailable."""

    def check(self) -> list[Finding]:
        """Check for `ingest check` that everything works which the commands need of the log."""

    def check_feed(self) -> list[Finding]:
        """Check for `ingest check` that changes can be published and followed."""

    def probe_append(self) -> None:
        """Raise LogUnavailable when the log would take no record now; leave nothing in it."""

    def probe_read(self) -> None:
        """Raise LogUnavailable when the group could not read records, or not commit them."""


class SqliteLog:
    """The embedded log. Consumers append to the topic `feed`, which belongs to no group."""

    def __init__(
        self, path: Path, topics: Sequence[str], group: str, retention: timedelta, feed: str = ""
    ) -> None:
        self._path, self._topics, self._group, self._retention = path, topics, group, retention
        self._feed = feed

    @property
    def file(self) -> Path:
        return self._path

    def producer(self) -> PolledProducer:
        from ingest.log.sqlite import SqliteProducer

        return SqliteProducer(self._path)

    def consumer(self) -> Consumer:
        from ingest.log.sqlite import SqliteConsumer

        return SqliteConsumer(self._path, self._group, self._topics, self._retention, feed=self._feed)

    def reader(self, since: Start, topics: Sequence[str] = ()) -> Reader:
        from ingest.log.sqlite import SqliteReader

        return SqliteReader(self._path, topics or self._topics, since)

    def follower(self, topic: str, start: Start) -> Follower:
        from ingest.log.sqlite.follower import SqliteFollower

        return SqliteFollower(self._path, topic, start)

    def backlog(self) -> list[Backlog]:
        from ingest.log import sqlite

        return sqlite.backlog(self._path, self._group, self._topics)

    def check(self) -> list[Finding]:
        try:
            self.probe_append()
        except LogUnavailable as error:
            return [failure("log", error)]
        if self._path.exists():
            return [ok("log", f"{self._path} can be written to")]
        return [ok("log", f"{self._path} will be created at the first start")]

    def check_feed(self) -> list[Finding]:
        return [ok("feed", f"changes are appended to {self._path} as {self._feed}")]

    def probe_append(self) -> None:
        from ingest.log.sqlite.reader import try_append

        try_append(self._path)

    def probe_read(self) -> None:
        self.probe_append()  # committing writes to the same file


class KafkaLog:
    """A log on Kafka brokers, each named `host:port`. Consumers append to the topic `feed`."""

    def __init__(
        self, servers: list[str], settings: KafkaSettings, topics: Sequence[str], group: str, feed: str = ""
    ) -> None:
        self.servers = servers
        self._settings, self._topics, self._group, self._feed = settings, topics, group, feed

    @property
    def file(self) -> None:
        return None

    def producer(self) -> PolledProducer:
        from ingest.log.kafka import KafkaLogProducer

        return KafkaLogProducer(self.servers, self._settings, self._topics)

    def consumer(self) -> Consumer:
        from ingest.log.kafka import KafkaLogConsumer

        return KafkaLogConsumer(self.servers, self._settings, self._group, self._topics, feed=self._feed)

    def reader(self, since: Start, topics: Sequence[str] = ()) -> Reader:
        from ingest.log.kafka import KafkaLogReader

        return KafkaLogReader(self.servers, self._settings, topics or self._topics, since)

    def follower(self, topic: str, start: Start) -> Follower:
        from ingest.log.kafka.follower import KafkaFollower

        return KafkaFollower(self.servers, self._settings, topic, start)

    def backlog(self) -> list[Backlog]:
        from ingest.log import kafka

        return kafka.backlog(self.servers, self._settings, self._group, self._topics)

    def check(self) -> list[Finding]:
        from ingest.log.kafka import rights

        return rights.check_rights(self.servers, self._settings, self._group, self._topics)

    def check_feed(self) -> list[Finding]:
        from ingest.log.kafka import feed_rights

        return feed_rights.check_feed(self.servers, self._settings, self._group, self._feed)

    def probe_append(self) -> None:
        from ingest.log.kafka import rights

        rights.require_write(self.servers, self._settings, self._topics)

    def probe_read(self) -> None:
        from ingest.log.kafka import rights

        rights.require_read(self.servers, self._settings, self._group, self._topics)


def build_log(  # noqa: PLR0913 - what a log is made of
    url: str, kafka: KafkaSettings, topics: Sequence[str], *, group: str, retention: timedelta, feed: str
) -> SqliteLog | KafkaLog:
    """Return the log that a URL names: `sqlite:///data/log.db`, or `kafka://host:9092,host2:9092`.

    `retention` is how long the embedded log keeps records that every group has committed. `feed` is the topic
    of changes.
    """
    if url.startswith(_SQLITE):
        return SqliteLog(Path(url.removeprefix(_SQLITE)), topics, group, retention, feed)
    return KafkaLog(url.removeprefix(_KAFKA).split(","), kafka, topics, group, feed)


@dataclass(frozen=True, slots=True)
class _Pending:
    """The number of records that are waited for, and the progress of their consumers."""

    records: int = field(compare=False)
    committed: int


def wait_until_consumed(
    log: Log, interval: timedelta, topics: Collection[str] = (), follow: Callable[[float], None] = ignore
) -> None:
    """Wait until consumers have loaded all that is in these topics now, or in all topics.

    `interval` is the time between two loads (`Settings.linger`). `follow` is called meanwhile with the
    seconds for which no consumer has loaded anything.

    Raises LogUnavailable when that lasts for a minute longer than `interval`.
    """
    targets = {
        entry.partition: entry.next
        for entry in log.backlog()
        if not topics or entry.partition.topic in topics
    }

    def pending(backlog: Sequence[Backlog]) -> _Pending:
        committed = sum(min(entry.committed, targets.get(entry.partition, 0)) for entry in backlog)
        return _Pending(sum(targets.values()) - committed, committed)

    _wait(log, interval, pending, f" of {', '.join(sorted(topics))}" if topics else "", follow)


def wait_for_room(
    log: Log, interval: timedelta, limit: int, follow: Callable[[float], None] = ignore
) -> None:
    """Wait until at most `limit` records wait for consumers.

    `interval`, `follow` and errors are those of `wait_until_consumed`.
    """

    def pending(backlog: Sequence[Backlog]) -> _Pending:
        lag = sum(entry.lag for entry in backlog)
        return _Pending(lag if lag > limit else 0, sum(entry.committed for entry in backlog))

    _wait(log, interval, pending, "", follow)


def _wait(
    log: Log,
    interval: timedelta,
    count_pending: Callable[[Sequence[Backlog]], _Pending],
    of_topics: str,
    follow: Callable[[float], None],
) -> None:
    def pending() -> _Pending | None:
        state = count_pending(log.backlog())
        return state if state.records else None

    def stalled(state: _Pending, seconds: float) -> LogUnavailable:
        return LogUnavailable(
            f"no consumer has loaded any of {state.records} records{of_topics} in the log for"
            f" {seconds:.0f} s: is `ingest up` or `ingest consume` running? They are loaded once it is"
        )

    reason = f"a consumer (`ingest up`, `ingest consume`) has to load what is in the log{of_topics}"
    if interval >= _LONG_INTERVAL:
        reason += f", which it does every {describe_duration(interval)} (consumer.linger)"
    wait_while(pending, stalled, reason, follow, interval.total_seconds())
