"""The locks, the wheel and the sdist."""
