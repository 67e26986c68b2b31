"""Tests of what is proven complete: the pure rule, and a referee that knows the truth."""
