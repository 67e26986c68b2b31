"""The workflow that makes a release, and the version that it releases."""

import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import ingest
from tests.deploy.tools import actionlint

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "release.yml"


def test_actionlint_finds_nothing_wrong_with_the_workflow() -> None:
    done = subprocess.run([str(actionlint()), str(WORKFLOW)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_version_is_in_one_place() -> None:
    assert version("bookings-ingest") == ingest.__version__
    assert "version =" not in (ROOT / "pyproject.toml").read_text().partition("[tool.")[0]
    (command,) = re.findall(r"run: (test .+)$", WORKFLOW.read_text(), re.MULTILINE)
    for tag, code in ((f"v{ingest.__version__}", 0), ("v9.9.9", 1)):
        environ = {"PATH": "/usr/bin:/bin", "GITHUB_REF_NAME": tag}
        assert subprocess.run(["sh", "-c", command], cwd=ROOT, env=environ, check=False).returncode == code
