"""Hostile requests by the million at a real receiver, and what it accepted of them through the real consumer."""
