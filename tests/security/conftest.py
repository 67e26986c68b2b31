"""Rigs and databases of the consumers' tests."""

from tests.consumers.conftest import either_rig, either_tree, postgres, postgres_rig, postgres_tree, rig, tree

__all__ = ["either_rig", "either_tree", "postgres", "postgres_rig", "postgres_tree", "rig", "tree"]
