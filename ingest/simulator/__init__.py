"""The four vendors as they look from outside: a world of bookings, told in each vendor's own wire format.

It is written against the vendors' documentation, not against our own reading of it, so that it can prove that reading wrong.
"""
