"""Tests of the simulator: the world, its webhooks and APIs, and the comparison with the truth."""
