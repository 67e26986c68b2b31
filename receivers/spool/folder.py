"""The folder of a spool: its owner, its files, the producer over them, and whether they can take records.

A spool has an owner, because its records were accepted for one log, and must not get into another one.
"""

import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import orjson
import structlog

from ingest.errors import ConfigurationError, LogHeld, LogUnavailable
from ingest.files import explain_unwritable, replace_private
from ingest.log import PolledProducer
from ingest.log.sqlite import extent
from ingest.readiness import Finding, State, failure, judge_undone, ok, warning
from ingest.settings import Settings
from ingest.settings.sources import current_config_path
from ingest.telemetry import SPOOL_OLDEST_SECONDS, SPOOL_RECORDS
from ingest.times import describe_duration
from receivers.losses import report_spool_loss
from receivers.spool import SpoolingProducer
from receivers.spool.file import (
    SpoolFile,
    count_records,
    is_locked,
    oldest_seconds,
    record_topics,
    spool_files,
)

log = structlog.get_logger()

_MAX_FILES = 100  # receiver.workers is at most 64
_OWNER_FILE = "owner.json"
_ID_FILE = "id"


@dataclass(frozen=True, slots=True)
class SpoolState:
    """The state of a worker's file: its records, when the oldest came and how long ago, and their bytes."""

    file: str
    records: int
    oldest: datetime | None
    oldest_seconds: float
    bytes: int


def open_producer(settings: Settings) -> PolledProducer:
    """Open the producer of a worker, with a spool where the log is Kafka.

    The embedded log is as near and as durable as a spool.

    Raises LogUnavailable where an embedded log cannot be opened, and ConfigurationError where the spool is
    another receiver's.
    """
    producer = settings.build_log().producer()
    if not settings.uses_spool:
        return producer
    receiver = settings.receiver
    require_own_spool(settings)
    mark_spool(settings)
    files = claim_files(Path(receiver.spool_dir), settings.topics(), receiver.spool_limit)
    if not files:  # which is no reason to refuse what Kafka would take
        log.error(
            "spool.unusable",
            folder=receiver.spool_dir,
            why="no file can be opened there: when Kafka is away, deliveries are answered 503",
        )
        return producer
    claim = partial(claim_left_files, Path(receiver.spool_dir), settings.topics(), receiver.spool_limit)
    after = min(receiver.spool_after, receiver.append_timeout / 2)  # there must be time left to spool
    on_lost = partial(report_spool_loss, settings, producer)
    return SpoolingProducer(producer, files, after.total_seconds(), on_lost, claim)


def claim_files(folder: Path, topics: Sequence[str], limit: int) -> list[SpoolFile]:
    """Open the files of a worker: the first is written to, the others hold what processes that ended left.

    None where none can be used.
    """
    existing = spool_files(folder)
    new = (folder / f"spool-{number:03}.db" for number in range(_MAX_FILES))
    candidates = (_open_file(path, topics, limit) for path in dict.fromkeys((*existing, *new)))
    own = next(filter(None, candidates), None)
    if own is None:
        return []
    return [own, *claim_left_files(folder, topics, limit)]


def claim_left_files(folder: Path, topics: Sequence[str], limit: int) -> list[SpoolFile]:
    """Open the files with records that no process has: whoever wrote them has ended."""
    files = []
    for path in spool_files(folder):
        with suppress(LogUnavailable):
            if count_records(path) and (file := _open_file(path, topics, limit)):
                files.append(file)
    return files


def _open_file(path: Path, topics: Sequence[str], limit: int) -> SpoolFile | None:
    """Open a file. Returns None where another process has it, or nobody can open it."""
    try:
        return SpoolFile(path, topics, limit)
    except LogHeld:
        return None
    except (LogUnavailable, OSError) as error:
        log.error("spool.passed_over", file=str(path), why=str(error))  # noqa: TRY400 - where it was raised is of no use
        return None


def drain_leftovers(settings: Settings) -> None:
    """Move what is left in the spool, from when the log was Kafka, into an embedded log.

    This comes before any newer delivery, so that nothing overtakes an older record of its booking.

    Raises ConfigurationError where the spool is another receiver's, and LogUnavailable where not everything
    can be moved, above all while another receiver has one of the files. What was moved stays so.
    """
    folder = settings.receiver.spool_dir
    try:
        require_own_spool(settings)
        paths = [state.file for state in spool_states(settings) if state.records]
        if not paths:
            return
        log.info("spool.draining", folder=folder, files=len(paths), why="the log is no longer Kafka")
        topics, limit = settings.topics(), settings.receiver.spool_limit
        with ExitStack() as stack:
            files = [stack.enter_context(closing(SpoolFile(Path(path), topics, limit))) for path in paths]
            producer = stack.enter_context(closing(settings.build_log().producer()))
            _set_metrics(files)
            for file in files:
                while file.drain(producer):
                    _set_metrics(files)
                while file.shrink():
                    pass
        log.info("spool.empty")
    except LogUnavailable as error:
        raise LogUnavailable(
            f"records that were accepted while the log was Kafka wait in {folder}. They must be in the "
            "log before any newer one, and cannot be moved: "
            f"{error}. Fix that, or move the file away to give up its records"
        ) from error


def _set_metrics(files: Sequence[SpoolFile]) -> None:
    SPOOL_RECORDS.set(sum(file.record_count() for file in files))
    SPOOL_OLDEST_SECONDS.set(oldest_seconds(files))


def spool_states(settings: Settings) -> list[SpoolState]:
    """Return the state of every spool file on this machine, also with an embedded log.

    Raises LogUnavailable.
    """
    states = []
    for path in spool_files(Path(settings.receiver.spool_dir)):
        oldest, size = extent(path)
        since = datetime.fromtimestamp(oldest, UTC) if oldest else None
        age = (datetime.now(UTC) - since).total_seconds() if since else 0.0
        states.append(SpoolState(str(path), count_records(path), since, round(age, 1), size))
    return states


def check_spool(settings: Settings) -> list[Finding]:
    """Check whether the spool can be used, and what is in it. Leaves nothing behind."""
    folder = Path(settings.receiver.spool_dir)
    try:
        records = sum(state.records for state in spool_states(settings))
        if settings.uses_spool:
            _require_space(settings)
    except LogUnavailable as error:
        return [failure("spool", error)]
    if settings.uses_spool:
        return [ok("spool", f"{folder} can be written to, {records} records wait there")]
    if records:
        return [
            warning(
                "spool",
                f"{records} records wait in {folder} from when the log was Kafka",
                "start a receiver: it moves them into the log",
            )
        ]
    return [Finding("spool", State.SKIPPED, "not used: only needed with Kafka")]


def readiness(settings: Settings, probe: Callable[[], None]) -> list[Finding]:
    """Return whether a receiver can keep a delivery: in the log, or in a spool that has space left.

    `probe` raises LogUnavailable where the log takes no records.
    """
    log_error: LogUnavailable | None = None
    spool_error: LogUnavailable | None = None
    try:
        probe()
    except LogUnavailable as error:
        log_error = error
        if not settings.uses_spool:
            return [failure("log", error)]
    if settings.uses_spool:
        try:
            _require_file_with_space(settings)
        except LogUnavailable as error:
            spool_error = error
    if log_error is None:
        findings = [ok("log", f"{settings.log} takes records")]
        if spool_error:
            why = f"deliveries will be answered 503 when Kafka is away: {spool_error}"
            findings.append(warning("spool", why))
    elif spool_error:
        findings = [failure("log", log_error), failure("spool", spool_error)]
    else:
        findings = [
            warning("log", str(log_error), "deliveries are kept in the spool meanwhile"),
            ok("spool", f"{settings.receiver.spool_dir} takes records"),
        ]
    return [*findings, *_judge_age(settings)]


def _judge_age(settings: Settings) -> list[Finding]:
    """Return a finding about how long the oldest record has waited in the spool, none where it is empty."""
    try:
        ages = [state.oldest_seconds for state in spool_states(settings) if state.records]
    except LogUnavailable as error:
        return [failure("undone", error)]
    if not ages:
        return []
    age = timedelta(seconds=max(ages))
    detail = f"records wait in the spool, the oldest for {describe_duration(age)}"
    limit = settings.receiver.undone_limit
    finding = judge_undone("receiver", detail, age, limit, "see why Kafka does not take them")
    return [finding if finding.failed else warning("undone", finding.detail)]


def _require_file_with_space(settings: Settings) -> None:
    """Raise LogUnavailable when no record fits into the spool of a running receiver."""
    if not _require_space(settings):
        folder = settings.receiver.spool_dir
        raise LogUnavailable(
            "there is no spool file in receiver.spool_dir "
            f"{folder}: the receiver's log says why (spool.unusable)"
        )


def _require_space(settings: Settings) -> list[SpoolState]:
    """Return the states of the spool's files. Raises LogUnavailable when no record fits into it."""
    folder = Path(settings.receiver.spool_dir)
    if reason := explain_unwritable(folder):
        raise LogUnavailable(f"receiver.spool_dir {folder}: {reason}")
    states = spool_states(settings)
    if states and all(state.bytes >= settings.receiver.spool_limit for state in states):
        raise LogUnavailable(
            f"the spool {folder} is full: receiver.spool_limit is {settings.receiver.spool_limit} "
            "bytes; start what reads the log"
        )
    return states


@dataclass(frozen=True, slots=True)
class Owner:
    """A receiver, by its log, its topics and its settings file ("" where it has none)."""

    log: str
    topic_prefix: str
    config: str

    @classmethod
    def of(cls, settings: Settings) -> "Owner":
        """Return the receiver with these settings."""
        config = current_config_path()
        return cls(settings.log, settings.topic_prefix, str(config.absolute()) if config.exists() else "")

    def is_same(self, other: "Owner") -> bool:
        """Return whether both are the same receiver.

        Brokers come and go, the log may become an embedded one, and a folder may be moved, but not all at
        once.
        """
        if self.topic_prefix == other.topic_prefix and _addresses(self.log) & _addresses(other.log):
            return True
        return bool(self.config) and self.config == other.config


def require_own_spool(settings: Settings) -> None:
    """Raise ConfigurationError when another receiver uses the folder, or has left deliveries there."""
    folder, own = Path(settings.receiver.spool_dir), Owner.of(settings)
    files = spool_files(folder)
    topics: list[str] = []
    for file in files:
        with suppress(LogUnavailable):  # receivers pass over a file that nobody can read, too
            topics += record_topics(file)
    owner = _read_owner(folder)
    other = ""  # a description of the other receiver
    if owner is None:
        foreign = [topic for topic in topics if not topic.startswith(f"{settings.topic_prefix}.")]
        other = f"topic {foreign[0]}" if foreign else ""
    elif not owner.is_same(own):
        config = owner.config or "of the environment"
        other = f"log {owner.log}, topics {owner.topic_prefix}.*, settings {config}"
    if other and (topics or any(map(is_locked, files))):
        raise ConfigurationError(
            f"receiver.spool_dir {folder} has deliveries of another "
            f"receiver ({other}), which would get into the log of this "
            "one: set another folder. If they are this receiver's "
            "own, and only its log and its settings file have changed, "
            f"delete {folder / _OWNER_FILE} and set topic_prefix as it was"
        )


def mark_spool(settings: Settings) -> None:
    """Write down whose spool it is, in the folder, which is made where needed."""
    folder = Path(settings.receiver.spool_dir)
    own = Owner.of(settings)
    if _read_owner(folder) == own:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_private(folder / _OWNER_FILE, orjson.dumps(asdict(own)))
    except (OSError, ConfigurationError) as error:  # a folder that cannot be written to holds no spool either
        log.warning("spool.not_marked", folder=str(folder), why=str(error))


def spool_id(settings: Settings) -> str:
    """Return the id of the spool's folder, which stays as long as what is in it; "" where it has none."""
    file = Path(settings.receiver.spool_dir) / _ID_FILE
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_private(file, uuid.uuid4().hex.encode())
        return file.read_text(encoding="ascii").strip()
    except (OSError, ConfigurationError, ValueError):  # a folder that cannot be written to holds no spool
        return ""


def present_spool(settings: Settings) -> str:
    """Return the id of the spool on this machine if all of its files can be read; "" where there is none.

    Nothing that was accepted into it is lost: the next receiver here moves it into the log.
    """
    file = Path(settings.receiver.spool_dir) / _ID_FILE
    with suppress(OSError, ValueError, LogUnavailable):
        if file.exists() and spool_states(settings):
            return file.read_text(encoding="ascii").strip()
    return ""


def _read_owner(folder: Path) -> Owner | None:
    try:
        return Owner(**orjson.loads((folder / _OWNER_FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _addresses(log_url: str) -> set[str]:
    """Return the brokers, or the file."""
    return set(log_url.removeprefix("kafka://").split(",")) if log_url.startswith("kafka://") else {log_url}
