"""Tests of the receiver: what it answers and keeps, and how its processes start, stop and die."""
