"""Temporary files: where no folder takes them, what needs them says so."""

import socket
import tempfile
from pathlib import Path

import pytest

from ingest.errors import ConfigurationError
from ingest.files import scratch_folder
from ingest.settings.sources import Live, load_settings
from ingest.warehouse.destination import destination
from receivers.server import WorkerApp, _run_workers
from tests.support.processes import PythonProcess


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As on a read-only root without `/tmp`: none of the folders that Python tries is there."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "nowhere")])
    return tmp_path


def test_a_warehouse_cannot_be_opened(nowhere: Path) -> None:
    settings = load_settings(environ={"INGEST_WAREHOUSE__CREDENTIALS": f"{nowhere}/w.duckdb"})
    with pytest.raises(
        ConfigurationError,
        match=r"no folder takes temporary files: .*nowhere.*; mount a writable one .* set TMPDIR",
    ):
        destination(settings)


def test_several_workers_cannot_be_started(nowhere: Path) -> None:
    settings = load_settings(
        environ={"INGEST_LOG": f"sqlite:///{nowhere}/log.db", "INGEST_RECEIVER__WORKERS": "2"}
    )
    with pytest.raises(ConfigurationError, match="set TMPDIR"), socket.socket() as unused:
        _run_workers(settings, WorkerApp(Live(lambda: settings, [])), unused)


def test_a_folder_that_is_full_or_closed_is_told_in_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with (
        pytest.raises(ConfigurationError, match="No such file or directory; mount a writable one"),
        scratch_folder("x-"),
    ):
        pass


def test_a_scratch_folder_is_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder("x-") as folder:
        (folder / "file").touch()
    assert list(tmp_path.iterdir()) == []


_OWNER = """
import sys, time
from ingest.files import scratch_folder
with scratch_folder("x-") as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


def test_the_folder_of_a_killed_process_is_removed_by_the_next_and_that_of_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "x-not-ours").mkdir()
    with PythonProcess(_OWNER, TMPDIR=str(tmp_path)) as owner:
        folder = Path(owner.read_line())
        (folder / "counter.db").touch()
        with scratch_folder("x-"):
            assert (folder / "counter.db").exists()
    with scratch_folder("x-"):
        assert not folder.exists()
    assert (tmp_path / "x-not-ours").exists()
