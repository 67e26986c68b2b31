"""Tests of replay: a right warehouse stays as it is, and a wrong or lost one is repaired."""
