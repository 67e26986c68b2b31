"""Reads the warehouse: the destination of the settings, its tables, and queries beside a running consumer."""
