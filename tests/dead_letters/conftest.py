"""A product in one folder for each test, and settings of consumers on either destination."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.consumers.conftest import either_tree, postgres, postgres_rig, postgres_tree, rig, tree
from tests.dead_letters.desk import Desk

__all__ = ["desk", "either_tree", "postgres", "postgres_rig", "postgres_tree", "rig", "tree"]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with closing(Desk(tmp_path, monkeypatch)) as found:
        yield found
