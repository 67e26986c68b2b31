"""Tests that the locks are complete.

An installer that reads a lock has nothing left to choose, next month as today.
"""

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS_LOCK = "requirements-extras.lock"
LOCKS = ("requirements.lock", EXTRAS_LOCK, "requirements-dev.lock")
EXTRAS = sorted(PROJECT["project"]["optional-dependencies"])
OUT_OF_REACH = ("error sending request", "dns error", "Failed to fetch", "Could not connect")


@pytest.mark.parametrize("lock", LOCKS)
def test_every_dependency_of_what_is_locked_is_locked_too_with_its_extras(lock: str) -> None:
    pins = {canonicalize_name(pin.name): pin for pin in _pins(lock)}
    for pin in pins.values():
        for need in _needs(pin):
            locked = pins.get(canonicalize_name(need.name))
            assert locked, f"{pin.name} needs {need}, which {lock} does not have"
            assert need.extras <= locked.extras, (
                f"{pin.name} needs {need}; {lock} has {locked} without that extra"
            )
            assert all(
                need.specifier.contains(version.version, prereleases=True) for version in locked.specifier
            ), f"{pin.name}: {need}, {locked}"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_what_the_project_asks_for(lock: str) -> None:
    pins = {canonicalize_name(pin.name): pin for pin in _pins(lock)}
    for need in _requirements(lock):
        assert need.extras <= pins[canonicalize_name(need.name)].extras, (
            f"{need} is not in {lock} with its extras"
        )


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_exact_versions_by_their_hashes_and_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert "://" not in text
    for block in text.replace(" \\\n", " ").splitlines():
        if block and not block.startswith((" ", "#")):
            assert "==" in block, block
            assert "--hash=sha256:" in block, block


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_what_two_locks_pin_has_one_version(lock: str) -> None:
    extras = {pin.name: pin.specifier for pin in _pins(EXTRAS_LOCK)}
    assert {pin.name: pin.specifier for pin in _pins(lock) if pin.name in extras}.items() <= extras.items()


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_resolves_to_what_is_locked(extra: str) -> None:
    command = ["-m", "uv", "pip", "compile", "-q", "--universal", "--no-strip-extras", "--no-header"]
    process = subprocess.run(
        [sys.executable, *command, "--no-annotate", "--extra", extra, "-c", EXTRAS_LOCK, "pyproject.toml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode and any(words in process.stderr for words in OUT_OF_REACH):
        pytest.skip(f"the package index cannot be reached: {process.stderr.splitlines()[0]}")
    assert process.returncode == 0, process.stderr
    locked = {str(pin.name): str(pin.specifier) for pin in _pins(EXTRAS_LOCK)}
    resolved = {pin.name: str(pin.specifier) for pin in _evaluated(process.stdout)}
    assert {Requirement(need).name for need in PROJECT["project"]["optional-dependencies"][extra]} <= {
        PROJECT["project"]["name"],
        *resolved,
    }
    assert resolved.items() <= locked.items()


def _pins(lock: str) -> Iterator[Requirement]:
    """Return the lock's pins for the Python and the platform that run this test."""
    return _evaluated((ROOT / lock).read_text(encoding="utf-8"))


def _evaluated(text: str) -> Iterator[Requirement]:
    for line in text.replace(" \\\n", " ").splitlines():
        if line and not line.startswith((" ", "#")):
            pin = Requirement(line.split(" --hash")[0].strip())
            if pin.marker is None or pin.marker.evaluate():
                yield pin


def _needs(pin: Requirement) -> Iterator[Requirement]:
    """Return what an installed package requires, with the extras that the lock asks of it."""
    try:
        requirements = distribution(pin.name).requires or []
    except PackageNotFoundError:
        pytest.fail(f"{pin} is locked and not installed here")
    for requirement in map(Requirement, requirements):
        if (
            requirement.marker is None
            or any(requirement.marker.evaluate({"extra": extra}) for extra in (pin.extras or {""}))
            or requirement.marker.evaluate({"extra": ""})
        ):
            yield requirement


def _requirements(lock: str) -> Iterator[Requirement]:
    project = PROJECT["project"]
    yield from map(Requirement, project["dependencies"])
    if lock != "requirements.lock":
        extras = chain.from_iterable(project["optional-dependencies"].values())
        yield from (need for need in map(Requirement, extras) if need.name != project["name"])
    if lock == "requirements-dev.lock":
        yield from map(Requirement, PROJECT["dependency-groups"]["dev"])
