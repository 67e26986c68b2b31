"""The documentation as a site: Sphinx builds it, and every link and every anchor leads somewhere."""

import subprocess
from pathlib import Path

from tests.deploy.tools import python_tool
from tests.support.processes import ROOT


def build(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Build the site into a folder, where each warning is an error."""
    program = str(python_tool("sphinx-build", "site"))
    command = [program, "-q", "-n", "-W", "--keep-going", "-d", str(folder / "doctrees"), "-c", "docs"]
    command += [".", str(folder / "html")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    done = build(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for page in ("docs/tutorial.html", "README.html", "deploy/systemd/README.html"):
        assert (tmp_path / "html" / page).is_file()


def main() -> None:
    """Build the site into .cache/site."""
    done = build(ROOT / ".cache" / "site")
    print(done.stderr or ROOT / ".cache" / "site" / "html" / "docs" / "index.html")


if __name__ == "__main__":
    main()
