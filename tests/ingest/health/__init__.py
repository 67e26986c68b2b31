"""Tests of the verdict on each account."""
