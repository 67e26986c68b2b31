"""Receivers of others to compare with."""
