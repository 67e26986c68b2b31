"""The runbook: an entry for each alert, and every block of its commands run by a drill."""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.deploy.test_rules import ALERTS
from tests.support.processes import environment

ROOT = Path(__file__).parents[2]
DRILLS = ROOT / "deploy" / "drills"
RUNBOOK = (ROOT / "deploy" / "RUNBOOK.md").read_text()
SCRIPTS = {file.stem: file.read_text() for file in DRILLS.glob("*.sh") if file.stem != "lib"}
# A version whose tables, log and settings differ from today's in much.
VERSION_BEFORE = "18b6a66377287a8a14be75a83d58899f8c146db3"
PROGRAMS = ("curl", "sqlite3")
_DRILL_SECONDS = 900  # long, for a slow machine


def _blocks() -> dict[str, str]:
    """Return the blocks of commands by their names."""
    return dict(re.findall(r"<!-- run: ([\w-]+) -->\n```sh\n(.*?)```", RUNBOOK, re.DOTALL))


def test_each_alert_has_an_entry_with_commands_and_says_when_it_is_over() -> None:
    entries = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##)", RUNBOOK, re.MULTILINE | re.DOTALL))
    assert entries.keys() == ALERTS.keys()
    for name, entry in entries.items():
        assert f"<!-- run: {name.lower()} -->" in entry, name
        assert re.search(r"^Over ", entry, re.MULTILINE), name


def test_every_block_of_commands_is_run_by_a_drill() -> None:
    blocks = _blocks()
    assert RUNBOOK.count("```sh") == len(blocks) + 1, (
        "all but the one that tells where things are have a name"
    )
    by_name = {
        name
        for script in SCRIPTS.values()
        for name in re.findall(r"^runbook ([\w-]+)$", script, re.MULTILINE)
    }
    assert blocks.keys() == by_name | {name.lower() for name in ALERTS}
    assert 'block "$alert"' in SCRIPTS["alerts"], "it runs those of all alerts"


def run_drill(name: str, folder: Path, **environ: str) -> str:
    """Run a drill with the `ingest` of the tests, and return what it printed."""
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        pytest.skip(f"{', '.join(missing)} is missing")
    variables = environment(**environ, TMPDIR=str(folder))
    variables["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    del variables["PYTHONPATH"]  # another version has to be able to run
    done = subprocess.run(
        ["sh", str(DRILLS / f"{name}.sh")],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_DRILL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-10000:]
    assert done.stdout.endswith("DONE\n")
    assert list(folder.glob("tmp.*")) == [], "it leaves nothing behind"
    return done.stdout


@pytest.mark.parametrize("name", sorted(SCRIPTS.keys() - {"kafka", "upgrade"}))
def test_a_drill_succeeds(name: str, tmp_path: Path) -> None:
    run_drill(name, tmp_path)


@pytest.mark.kafka
def test_the_way_to_kafka_loses_nothing(kafka_servers: list[str], tmp_path: Path) -> None:
    run_drill("kafka", tmp_path, KAFKA=f"kafka://{','.join(kafka_servers)}")


def _wheel(source: Path, folder: Path) -> Path:
    command = ["uv", "build", "--quiet", "--offline", "--wheel", "--no-build-isolation"]
    command += ["--python", sys.executable, "--out-dir", str(folder), str(source)]
    command[0] = str(Path(sys.executable).with_name("uv"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [wheel] = folder.glob("*.whl")
    return wheel


def _checkout(commit: str, folder: Path) -> Path:
    """Write a commit's files into a folder."""
    folder.mkdir()
    archive = folder.with_suffix(".tar")
    command = ["git", "archive", "--output", str(archive), commit]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this clone has no {commit}: {done.stderr.strip()}")
    shutil.unpack_archive(archive, folder)
    return folder


def test_upgrade_and_roll_back_lose_nothing(tmp_path: Path) -> None:
    found = ["git", "cat-file", "-e", f"{VERSION_BEFORE}^{{commit}}"]
    if subprocess.run(found, cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("the version before is not in this checkout: is it shallow?")
    old = _wheel(_checkout(VERSION_BEFORE, tmp_path / "old"), tmp_path / "old-wheel")
    new = _wheel(_working_copy(tmp_path / "new"), tmp_path / "new-wheel")
    environment_folder = tmp_path / "venv"
    venv.create(environment_folder, with_pip=True)
    [site] = environment_folder.glob("lib/python*/site-packages")
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "libraries.pth").write_text(f"{libraries}\n")
    printed = run_drill("upgrade", tmp_path, OLD_WHEEL=str(old), WHEEL=str(new), VENV=str(environment_folder))
    assert re.search(r"accepted \d+, loaded \d+\n", printed)


def _working_copy(folder: Path) -> Path:
    """Copy what git tracks, as it is now, into a folder."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    return folder
