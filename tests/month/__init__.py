"""A simulated month of bookings, of whose webhooks a tenth is lost, and its reconciliation."""
