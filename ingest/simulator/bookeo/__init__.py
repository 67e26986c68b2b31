"""Simulates Bookeo: its webhooks and its REST API."""
