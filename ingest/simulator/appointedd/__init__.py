"""Simulates Appointedd: its webhooks and its REST API."""
