"""Reconciliation: what a vendor's REST side says, compared with the warehouse; what was missed goes through the log like a webhook."""
