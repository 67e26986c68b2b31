"""A desk at each vendor."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.subscriptions.desk import WITH_API, Desk, opened


@pytest.fixture(params=WITH_API)
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    """At every vendor that has an API for it."""
    with opened(tmp_path / "operator", request.param) as found:
        yield found
