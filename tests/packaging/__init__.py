"""Tests of the locks, the wheel and the sdist."""
