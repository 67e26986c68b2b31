"""Tests of the dashboard's service."""
