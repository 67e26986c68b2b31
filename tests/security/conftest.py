"""Rigs and databases of the consumers' tests."""

from tests.consumers.conftest import (
    either_harness,
    either_tree,
    harness,
    postgres,
    postgres_harness,
    postgres_tree,
    tree,
)

__all__ = [
    "either_harness",
    "either_tree",
    "harness",
    "postgres",
    "postgres_harness",
    "postgres_tree",
    "tree",
]
