"""Rigs as the consumer's own tests have them."""

from tests.consumers.conftest import either_rig, postgres, postgres_rig, postgres_tree, rig, tree

__all__ = ["either_rig", "postgres", "postgres_rig", "postgres_tree", "rig", "tree"]
