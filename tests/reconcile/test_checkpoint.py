"""How far a run came is remembered, and one account is reconciled by one process at a time."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest.errors import ConfigurationError, LogUnavailable
from receivers.reconcile.checkpoint import Checkpoint, Progress
from receivers.reconcile.report import Counts

START = datetime(2026, 6, 1, tzinfo=UTC)
PROGRESS = Progress(START, None, START + timedelta(days=31), START + timedelta(days=60), Counts(seen=3, missed=1, requests=9))


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
    checkpoint.clear()
    checkpoint.clear()
    assert checkpoint.read(START, None) is None


@pytest.mark.parametrize(
    "garbage", [b"", b"{", b"[]", b'{"since": 1}', b'{"since":"x","until":null,"done":"x","started_at":"x","counts":{}}']
)
def test_a_file_that_cannot_be_read_is_no_progress(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "sales.json").write_bytes(garbage)
    assert Checkpoint(tmp_path, "sales").read(START, None) is None


def test_a_second_process_is_told_to_wait(tmp_path: Path) -> None:
    with Checkpoint(tmp_path, "sales").alone():
        with Checkpoint(tmp_path, "support").alone():
            pass
        with pytest.raises(LogUnavailable, match="another process is reconciling account sales"), Checkpoint(tmp_path, "sales").alone():
            pytest.fail("two at once")
    with Checkpoint(tmp_path, "sales").alone():
        pass


def test_a_folder_that_cannot_be_made_is_a_setting_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="state_dir"):
        Checkpoint(tmp_path / "file" / "folder", "sales")
