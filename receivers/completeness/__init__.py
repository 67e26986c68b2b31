"""Completeness: which hours of an account are proven to be in the warehouse, by what, and which are not."""
