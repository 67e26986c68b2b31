"""Tests of our readers of the vendors' REST sides.

They read the simulated vendors, and servers that misbehave on purpose.
"""
