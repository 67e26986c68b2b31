"""A simulated month of bookings, a tenth of its webhooks lost: what reconciliation makes of it."""
