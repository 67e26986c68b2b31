"""A PostgreSQL to load into, where one is installed."""

from tests.consumers.conftest import postgres

__all__ = ["postgres"]
