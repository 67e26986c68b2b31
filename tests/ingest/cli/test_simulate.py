"""`ingest simulate`: settings that work, webhooks, and REST APIs that know what was lost."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.polling import PATIENCE
from tests.support.processes import COMMAND, environment, ingest, refused


def test_the_other_commands_work_against_it_and_find_what_it_lost(tmp_path: Path) -> None:
    simulated = [*COMMAND, "simulate", "oncehub", "bookeo", "--rate", "20", "--lose", "1"]
    with subprocess.Popen(
        simulated, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        try:
            lines = [process.stderr.readline() for _ in range(8)]
            assert lines[0].startswith("simulating oncehub, bookeo; webhooks go to http://127.0.0.1:")
            assert "  ingest up --config .simulated/ingest.toml\n" in lines
            config = ("--config", ".simulated/ingest.toml")
            result = ingest(tmp_path, "reconcile", "--since", "5d", "--dry-run", "--json", *config)
            assert {report["account"] for report in result.json} == {"oncehub", "bookeo"}
            assert all(report["missed"] > 0 and report["outcome"] == "complete" for report in result.json)
            process.send_signal(signal.SIGINT)
            _, rest = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "stopped"


@pytest.mark.parametrize("folder", ["mine", "."])
def test_it_touches_no_folder_but_its_own(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "kept.txt").touch()
    assert "is not a demo's folder" in refused(ingest(tmp_path, "simulate", "--folder", folder))
    assert (tmp_path / folder / "kept.txt").exists()


def test_a_vendor_that_is_not_known_is_refused_with_those_that_are(tmp_path: Path) -> None:
    assert "known are appointedd, bookeo, calendly, oncehub" in refused(
        ingest(tmp_path, "simulate", "acuity")
    )
