"""Tests that break the running product over and over and check its data.

Nothing may be lost, nothing doubled, and nothing older written over newer.
"""
