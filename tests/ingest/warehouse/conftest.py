"""The fixtures of the consumer's tests, which fill the warehouse."""

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
