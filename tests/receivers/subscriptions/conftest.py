"""An installation for each vendor."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.receivers.subscriptions.installation import WITH_API, Installation, open_installation


@pytest.fixture(params=WITH_API)
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    """Yield an installation for each vendor that has an API for webhooks."""
    with open_installation(tmp_path / "operator", request.param) as installation:
        yield installation
