"""Reconciliation: what a vendor has, compared with the warehouse; what was missed goes through the log."""
