"""The fixtures of the consumer's tests."""

from tests.consumers.conftest import either_harness, harness, postgres, postgres_harness, postgres_tree, tree

__all__ = ["either_harness", "harness", "postgres", "postgres_harness", "postgres_tree", "tree"]
