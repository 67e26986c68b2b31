"""A product in one folder for each test, and settings of consumers on either destination."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.consumers.conftest import either_tree, harness, postgres, postgres_harness, postgres_tree, tree
from tests.consumers.dead_letters.product import Product

__all__ = ["either_tree", "harness", "postgres", "postgres_harness", "postgres_tree", "product", "tree"]


@pytest.fixture
def product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Product]:
    with closing(Product(tmp_path, monkeypatch)) as found:
        yield found
