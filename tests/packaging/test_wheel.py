"""Tests that the wheel is what the checkout is, and that the sdist makes the same wheel."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ingest", "receivers", "consumers")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel, built from the sdist, which is built from what git tracks."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout.split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command: list[str | Path] = [
        Path(sys.executable).with_name("uv"),
        "build",
        "--quiet",
        "--offline",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "--out-dir",
        folder,
        source,
    ]
    process = subprocess.run(command, capture_output=True, check=False, text=True)
    assert process.returncode == 0, process.stderr
    return folder


def test_the_wheel_has_every_module_the_markers_of_its_types_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout.split()
    assert names == {name for name in tracked if (ROOT / name).is_file()}
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_the_sdist_has_what_the_wheel_is_built_from(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "ingest/cli/__init__.py", "ingest/py.typed"} <= names


def test_the_wheel_works_where_the_checkout_is_not(built: Path, tmp_path: Path) -> None:
    """Run the wheel's files alone, with the libraries that are installed here."""
    (wheel,) = built.glob("*.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", wheel, tmp_path / "site"], check=True)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r});"
        f" import ingest.cli; assert ingest.__file__.startswith({str(tmp_path)!r});"
        " sys.argv = ['ingest', 'demo', '--seconds', '2', '--rate', '5']; ingest.cli.main()"
    )
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        check=False,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path)},
    )
    assert process.returncode == 0, process.stdout + process.stderr
