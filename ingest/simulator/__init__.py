"""Simulated vendors: a world of bookings, and for each vendor the webhooks and the REST API that report them.

They are written from the vendors' documentation, not from our own reading of it, so that they can prove that
reading wrong.
"""
