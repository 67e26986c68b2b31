"""Fixtures: one simulated vendor for each test that asks for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.simulated_vendor import Side, simulated, vendors_with_rest


@pytest.fixture(params=vendors_with_rest())
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    """Return each vendor's account, one after the other."""
    with simulated(request.param, tmp_path) as side:
        yield side


@pytest.fixture
def appointedd(tmp_path: Path) -> Iterator[Side]:
    with simulated("appointedd", tmp_path) as side:
        yield side


@pytest.fixture
def bookeo(tmp_path: Path) -> Iterator[Side]:
    with simulated("bookeo", tmp_path) as side:
        yield side


@pytest.fixture
def calendly(tmp_path: Path) -> Iterator[Side]:
    with simulated("calendly", tmp_path) as side:
        yield side


@pytest.fixture
def oncehub(tmp_path: Path) -> Iterator[Side]:
    with simulated("oncehub", tmp_path) as side:
        yield side
