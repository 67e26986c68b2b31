"""Tests that the locks are complete.

An installer that reads a lock has nothing left to choose, next month as today.
"""

import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock")


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
    for need in _requirements(with_dev=lock == "requirements-dev.lock"):
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


def _pins(lock: str) -> Iterator[Requirement]:
    """Return the lock's pins for the Python and the platform that run this test."""
    for line in (ROOT / lock).read_text(encoding="utf-8").replace(" \\\n", " ").splitlines():
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


def _requirements(*, with_dev: bool) -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    yield from map(Requirement, project["project"]["dependencies"])
    if with_dev:
        yield from map(Requirement, project["dependency-groups"]["dev"])
