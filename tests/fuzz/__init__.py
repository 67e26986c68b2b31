"""Hostile requests by the million to a real receiver, and what a real consumer loads of those it accepts."""
