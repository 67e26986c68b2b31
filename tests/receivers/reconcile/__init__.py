"""Reconciliation: pure parts, and against the simulated vendors."""
