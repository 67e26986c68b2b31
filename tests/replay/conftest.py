"""The fixtures of the consumer's tests."""

from tests.consumers.conftest import either_rig, postgres, postgres_rig, postgres_tree, rig, tree

__all__ = ["either_rig", "postgres", "postgres_rig", "postgres_tree", "rig", "tree"]
