"""How far a run came is remembered, and one account is reconciled by one process at a time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest.errors import ConfigurationError, LogUnavailable
from receivers.reconcile.checkpoint import Checkpoint, End, KnownKey, Progress
from receivers.reconcile.report import Counts

START = datetime(2026, 6, 1, tzinfo=UTC)
NOW = datetime.now(UTC)
COUNTS = Counts(seen=3, missed=1, requests=9)
PROGRESS = Progress(
    START,
    None,
    START + timedelta(days=31),
    START + timedelta(days=60),
    NOW,
    COUNTS,
    frozenset({"B7", "B9"}),
    40,
)
END = End(NOW, None, "the vendor is down", resumable=True)


def test_a_run_that_was_stopped_goes_on_where_the_same_is_asked_for(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "new", "sales").write(PROGRESS)
    assert Checkpoint(tmp_path / "new", "sales").read(START, None) == PROGRESS


def test_a_run_that_is_asked_for_something_else_starts_from_the_beginning(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "sales")
    checkpoint.write(PROGRESS)
    assert checkpoint.read(START, START + timedelta(days=90)) is None
    assert checkpoint.read(START + timedelta(seconds=1), None) is None
    assert Checkpoint(tmp_path, "support").read(START, None) is None


def test_a_run_that_came_to_its_end_is_not_resumed(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "sales")
    checkpoint.write(PROGRESS)
    checkpoint.clear(START, None)
    checkpoint.clear(START, None)
    assert checkpoint.read(START, None) is None


def test_a_run_that_was_stopped_long_ago_is_not_resumed(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "sales")
    checkpoint.write(replace(PROGRESS, written_at=NOW - timedelta(days=1, seconds=1)))
    assert checkpoint.read(START, None) is None


def test_what_a_stopped_run_found_is_told_once_and_it_can_still_go_on(tmp_path: Path) -> None:
    checkpoint, another = Checkpoint(tmp_path, "sales"), START - timedelta(days=1)
    checkpoint.write(PROGRESS)
    assert Checkpoint(tmp_path, "sale").unpublished(another, None) == []
    assert checkpoint.unpublished(START, None) == [], "it goes on itself"
    assert checkpoint.unpublished(another, None) == [PROGRESS]
    checkpoint.settle(PROGRESS, END)
    assert checkpoint.unpublished(another, None) == []
    assert checkpoint.read(START, None) == replace(PROGRESS, counts=Counts())


def test_how_a_run_ended_is_kept_until_it_is_told_however_old_it_is_and_covers_only_then(
    tmp_path: Path,
) -> None:
    checkpoint, end = Checkpoint(tmp_path, "sales"), End(NOW, None, None, covers=NOW - timedelta(hours=1))
    ended = replace(PROGRESS, written_at=NOW - timedelta(days=9), end=end)
    checkpoint.write(ended)
    assert checkpoint.unpublished(START, None) == [ended]
    assert checkpoint.covered() is None
    checkpoint.settle(ended, end)
    assert checkpoint.covered() == end.covers
    assert checkpoint.unpublished(START, None) == []
    assert checkpoint.read(START, None) is None


def test_what_a_run_found_that_is_too_old_to_go_on_is_told_and_without_any_it_is_forgotten(
    tmp_path: Path,
) -> None:
    checkpoint, old = (
        Checkpoint(tmp_path, "sales"),
        replace(PROGRESS, written_at=NOW - timedelta(days=1, seconds=1)),
    )
    checkpoint.write(old)
    assert checkpoint.unpublished(START, None) == [old]
    checkpoint.settle(old, END)
    assert list(tmp_path.glob("*.reconcile")) == []
    checkpoint.write(replace(old, counts=Counts()))
    assert checkpoint.unpublished(START, None) == []
    assert list(tmp_path.glob("*.reconcile")) == []


def test_a_folder_that_cannot_be_used_any_more_is_named(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state", "sales")
    (tmp_path / "state").rmdir()
    with pytest.raises(LogUnavailable, match=r"reconcile\.state_dir .*/state cannot be used"):
        checkpoint.write(PROGRESS)
    with pytest.raises(LogUnavailable, match=r"reconcile\.state_dir .*/state cannot be used"):
        checkpoint.cover(START, NOW)


OF_EARLIER_RELEASES = {
    "sales.f3b0e7eb3cf0d9d5.reconcile": b"""\
{"since":"2026-06-01T00:00:00.000000Z","until":null,"done":"2026-07-02T00:00:00.000000Z",
"started_at":"2026-07-31T00:00:00.000000Z","written_at":"2026-07-31T00:00:01.500000Z",
"counts":{"seen":3,"matched":0,"missed":1,"repaired":0,"untold":0,"newer_here":0,"gone":0,"unreadable":0,
"requests":9,"least_requests":0},"unlisted":["B7","B9"],"rows":40,
"end":{"finished_at":"2026-07-31T00:00:02.000000Z","reached":null,"error":"the vendor is down",
"resumable":true,"covers":null}}""",
    "sales.reconciled.key": b"""\
{"fingerprint":"0123456789ab","since":"2026-06-01T00:00:00.000000Z","owner":null,"proven":true}""",
    "sales.reconciled.until": b"2026-06-01T00:00:00.000000Z",
}


def test_files_of_earlier_releases_are_read(tmp_path: Path) -> None:
    for name, content in OF_EARLIER_RELEASES.items():
        (tmp_path / name).write_bytes(content)
    checkpoint = Checkpoint(tmp_path, "sales")
    (progress,) = checkpoint.unpublished(START, None)
    end = End(START + timedelta(days=60, seconds=2), None, "the vendor is down", resumable=True)
    written_at = START + timedelta(days=60, seconds=1.5)
    assert progress == replace(PROGRESS, written_at=written_at, end=end)
    assert checkpoint.key() == KnownKey("0123456789ab", START, None, proven=True)
    assert checkpoint.covered() == START


GARBAGE = [
    b"",
    b"{",
    b"[]",
    b'{"since": 1}',
    b'{"since":"x","until":null,"done":"x","started_at":"x","written_at":"x","counts":{}}',
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_file_that_cannot_be_read_is_no_progress(tmp_path: Path, garbage: bytes) -> None:
    checkpoint = Checkpoint(tmp_path, "sales")
    checkpoint.write(PROGRESS)
    (file,) = tmp_path.glob("*.reconcile")
    file.write_bytes(garbage)
    assert checkpoint.read(START, None) is None
    assert checkpoint.unpublished(START - timedelta(days=1), None) == []


def test_no_accounts_files_are_anothers_or_anything_elses(tmp_path: Path) -> None:
    others = [tmp_path / name for name in ("sales.json", "calendly-sales.json", "sales.subscriptions.json")]
    for file in others:
        file.write_text("kept")
    for account in ("sales", "calendly-sales"):
        checkpoint = Checkpoint(tmp_path, account)
        with checkpoint.lock():
            checkpoint.write(PROGRESS)
            checkpoint.cover(START, NOW)
            checkpoint.clear(START, None)
    assert [file.read_text() for file in others] == ["kept"] * 3


def test_a_second_process_is_told_to_wait(tmp_path: Path) -> None:
    with Checkpoint(tmp_path, "sales").lock():
        with Checkpoint(tmp_path, "support").lock():
            pass
        with (
            pytest.raises(LogUnavailable, match=r"another process .*is reconciling account sales"),
            Checkpoint(tmp_path, "sales").lock(),
        ):
            pytest.fail("two at once")
    with Checkpoint(tmp_path, "sales").lock():
        pass


def test_a_folder_that_cannot_be_made_is_a_setting_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="state_dir"):
        Checkpoint(tmp_path / "file" / "folder", "sales")


def test_a_mark_of_the_future_is_not_believed_and_the_next_run_that_looks_far_back_replaces_it(
    tmp_path: Path,
) -> None:
    checkpoint, year = Checkpoint(tmp_path, "sales"), timedelta(days=365)
    checkpoint.cover(NOW, NOW + year)
    covered = checkpoint.covered(NOW)
    assert covered is not None
    assert covered <= NOW - timedelta(days=31)
    checkpoint.cover(NOW - timedelta(days=2), NOW)
    assert checkpoint.covered(NOW) == covered, "a run that looked back less leaves a hole"
    checkpoint.cover(covered, NOW - timedelta(minutes=1))
    assert checkpoint.covered(NOW) == NOW - timedelta(minutes=1)


def test_progress_that_was_written_in_the_future_is_too_old_to_go_on(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "sales")
    checkpoint.write(replace(PROGRESS, written_at=NOW + timedelta(days=365)))
    assert checkpoint.read(PROGRESS.since, PROGRESS.until) is None
