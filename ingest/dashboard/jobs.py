"""Work that takes long: one job at a time, with progress, which can be cancelled and leaves a receipt."""

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import structlog

from ingest.errors import ConfigurationError, IngestError

log = structlog.get_logger()

_MOST_KEPT = 50


class JobState(StrEnum):
    """How far a job is. A cancelled one may have done a part, which its receipt says."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class Job:
    """A piece of work.

    `command` is the command line that does the same. `total` is 0 where it is not known. `result` is the
    receipt as far as it is written, of whose form `kind` decides. `follow_up` is the path of the form that
    does what this job has planned, "" where nothing is to be done.
    """

    kind: str
    title: str
    command: str
    id: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    state: JobState = JobState.RUNNING
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    finished_at: datetime | None = None
    done: int = 0
    total: int = 0
    error: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    follow_up: str = ""
    cancel: threading.Event = field(default_factory=threading.Event, repr=False)

    def receipt(self) -> dict[str, Any]:
        """Return all that is known of the job, for a page and for JSON."""
        return {
            "id": self.id,
            "kind": self.kind,
            "title": self.title,
            "state": str(self.state),
            "is_cancelling": self.cancel.is_set() and self.state is JobState.RUNNING,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "done": self.done,
            "total": self.total,
            "error": self.error,
            "result": dict(self.result),
            "follow_up": self.follow_up,
        }


class Jobs:
    """The job that runs, and the last ones that ran."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}

    def start(self, job: Job, work: Callable[[Job], None]) -> None:
        """Run `work` in a thread. Raises ConfigurationError while another job runs."""
        with self._lock:
            if running := next((other for other in self._jobs.values() if not other.finished_at), None):
                raise ConfigurationError(
                    f"one job runs at a time, and this one still does: {running.title}. Cancel it, or wait"
                )
            while len(self._jobs) >= _MOST_KEPT:
                del self._jobs[next(iter(self._jobs))]
            self._jobs[job.id] = job
        log.info("dashboard.job_started", kind=job.kind, job=job.id, command=job.command)
        threading.Thread(target=self._run, args=(job, work), name="job", daemon=True).start()

    def _run(self, job: Job, work: Callable[[Job], None]) -> None:
        state = JobState.FAILED
        try:
            work(job)
            state = JobState.CANCELLED if job.cancel.is_set() else JobState.DONE
        except IngestError as error:
            job.error = str(error)
        except Exception as error:  # our bug; the dashboard goes on
            job.error = f"a bug of ours: {type(error).__name__}; its place is in the dashboard's log"
            log.exception("dashboard.job_crashed", kind=job.kind, job=job.id)
        finally:
            job.state, job.finished_at = state, datetime.now(UTC)
            log.info("dashboard.job_ended", kind=job.kind, job=job.id, state=str(state), why=job.error)

    def find(self, job_id: str) -> Job:
        """Return a job. Raises ConfigurationError where it is not known any more."""
        try:
            return self._jobs[job_id]
        except KeyError:
            raise ConfigurationError(
                "there is no such job: receipts are kept until the dashboard is started again"
            ) from None

    def newest_first(self) -> list[Job]:
        """Return all jobs that are known."""
        return list(self._jobs.values())[::-1]
