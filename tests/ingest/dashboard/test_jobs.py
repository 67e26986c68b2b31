"""Jobs: one at a time, cancelled by a person, and a crash of one leaves the others."""

import threading
from collections.abc import Callable

import pytest

from ingest.dashboard.jobs import Job, Jobs, JobState
from ingest.errors import ConfigurationError, LogUnavailable
from tests.support.polling import PATIENCE, wait_for


def run(work: Callable[[Job], None], jobs: Jobs) -> Job:
    """Run a job to its end."""
    job = Job("kind", "title", "ingest status")
    jobs.start(job, work)
    wait_for(lambda: job.finished_at, "the job ends")
    return job


def test_a_second_job_is_refused_while_one_runs_and_cancelling_ends_that() -> None:
    jobs, job = Jobs(), Job("kind", "the first", "ingest status")

    def wait_for_cancelling(job: Job) -> None:
        job.cancel.wait(PATIENCE)

    jobs.start(job, wait_for_cancelling)
    with pytest.raises(ConfigurationError, match="the first"):
        jobs.start(Job("kind", "the second", ""), lambda _: None)
    job.cancel.set()
    wait_for(lambda: job.finished_at, "the job ends")
    assert job.state is JobState.CANCELLED
    assert run(lambda _: None, jobs).state is JobState.DONE


def test_a_failure_is_told_and_a_bug_is_no_more_than_named() -> None:
    def fail(_: Job) -> None:
        raise LogUnavailable("no broker")

    def crash(_: Job) -> None:
        raise ValueError("ada@example.com")

    jobs = Jobs()
    assert (run(fail, jobs).state, jobs.newest_first()[0].error) == (JobState.FAILED, "no broker")
    assert "ada" not in run(crash, jobs).error


def test_old_receipts_are_forgotten_and_a_running_job_is_not() -> None:
    jobs = Jobs()
    first = run(lambda _: None, jobs)
    done = threading.Event()
    for _ in range(50):
        run(lambda _: done.set(), jobs)
    with pytest.raises(ConfigurationError, match="no such job"):
        jobs.find(first.id)
