"""A product in one folder for each test."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.consumers.dead_letters.product import Product


@pytest.fixture
def product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Product]:
    with closing(Product(tmp_path, monkeypatch)) as product:
        yield product
